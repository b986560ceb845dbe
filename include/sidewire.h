/*
 * Sidewire's C interface: what socket calls cannot say. See libsidewire(3).
 *
 * Every function is declared weak: a program that uses this header links without any library, and runs without Sidewire.
 * Where Sidewire is not in front of it the functions are NULL:
 *
 *     if (sidewire_version)
 *         carried = sidewire_carried_by(fd);
 *
 * Code that is not position independent (-fno-pie) finds them NULL always, unless it is compiled with -fno-plt.
 *
 * Nothing here is to be called from a signal handler, or between vfork and exec.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */


#ifndef SIDEWIRE_H
#define SIDEWIRE_H

/* Made from preload/shim/src/api.rs by `make header`. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#define SIDEWIRE_WEAK __attribute__((weak))


// The version that this header describes: major << 16 | minor << 8 | patch.
#define SIDEWIRE_VERSION 256

// Who carries a socket: the engine, or the kernel and why.
enum sidewire_carrier {
  // The engine: it is accelerated.
  SIDEWIRE_CARRIER_ENGINE = 0,
  // The kernel: not a TCP socket.
  SIDEWIRE_CARRIER_NOT_TCP = 1,
  // The kernel: the settings say so.
  SIDEWIRE_CARRIER_DISABLED = 2,
  // The kernel; why is not known: it came from another process, or thousands of sockets ago.
  SIDEWIRE_CARRIER_UNKNOWN = 3,
  // The kernel: no packet socket is to be had (CAP_NET_RAW).
  SIDEWIRE_CARRIER_NO_PACKET_SOCKET = 4,
  // The kernel: the peer, or the address that it is bound to, is of this host.
  SIDEWIRE_CARRIER_LOCAL = 5,
  // The kernel: IPv6.
  SIDEWIRE_CARRIER_IPV6 = 6,
  // The kernel: others listen on the port as well, by SO_REUSEPORT.
  SIDEWIRE_CARRIER_REUSE_PORT = 7,
  // The kernel: the way leads through a device without an Ethernet-like header.
  SIDEWIRE_CARRIER_DEVICE = 8,
  // The kernel: nothing was found that keeps it silent on the port.
  SIDEWIRE_CARRIER_NO_HOLDER = 9,
  // The kernel: the descriptor's number is too large.
  SIDEWIRE_CARRIER_DESCRIPTOR = 10,
  // The kernel: shared with another process, by fork, exec or spawn.
  SIDEWIRE_CARRIER_SHARED = 11,
  // The kernel: by sidewire_to_kernel.
  SIDEWIRE_CARRIER_HANDED_OVER = 12,
  // The kernel: an option that the engine does not have, as IP_TRANSPARENT.
  SIDEWIRE_CARRIER_OPTION = 13,
};

// A send's completion, in memory of the caller's that stays until it is called; commonly the first member of a larger
// structure.
//
// `complete` is called once, when the last byte that the call took has been acknowledged by the peer, or dropped because
// the connection was reset or closed. `zerocopy` is true when no byte was copied on its way by us or by the kernel, so far
// as that is known. Then the buffers are the caller's again.
//
// It runs on a thread of the library's own, one completion after the other: never inside of a call of the program's,
// never in a signal handler, and with no lock held. All signals are blocked there, and its stack has 2 MiB. It may call
// anything, sidewire_sendmsg and close included; while it sleeps no other completion is called. It must return: no
// longjmp, pthread_exit or exception out of it. In the child of a fork, and when the process ends, what is outstanding is not
// called.
struct sidewire_ubuf {
  // What is called.
  void (*complete)(struct sidewire_ubuf *ubuf, bool zerocopy);
};

// What no socket option tells of a socket.
struct sidewire_socket_stats {
  // enum sidewire_carrier; the other members are 0 unless it is the engine.
  uint32_t carrier;
  // The device of the socket's route, 0 while there is none.
  uint32_t ifindex;
  // Buffers that were never sent.
  uint32_t write_queue;
  // Buffers that were sent and are not acknowledged.
  uint32_t rtx_queue;
  // Received segments that wait for others before them.
  uint32_t ofo_queue;
  // Zerocopy sends, of either kind, that are not complete.
  uint32_t zerocopy;
  // 1 while the packet socket is full.
  uint32_t tx_blocked;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the library that is in front of the program: major << 16 | minor << 8 | patch.
uint32_t sidewire_version(void) SIDEWIRE_WEAK;

// Who carries the socket `fd`: an enum sidewire_carrier. A socket that is neither connected nor listening may still go to
// the kernel.
//
// -1 and EBADF when nothing is open under that number.
int sidewire_carried_by(int fd)
SIDEWIRE_WEAK;

// An enum sidewire_carrier in words, for a log line; never NULL.
const char *sidewire_carrier_text(int carrier) SIDEWIRE_WEAK;

// sendmsg(2) of memory that stays the caller's until `ubuf->complete` is called: io_uring's zerocopy send, for any program.
// The bytes are referenced and sent from where they are; `msg` and its iovecs may go when the call returns. SO_ZEROCOPY and
// the error queue have no part in it. Where the engine does not carry the socket the bytes are copied, and `complete` is
// called at once.
//
// The result is that of sendmsg(2), a short count included. `complete` will be called exactly when it is above 0.
//
// Also EINVAL when `ubuf` or its function is NULL (any other pointer that leads to no sidewire_ubuf is undefined behaviour),
// ENOBUFS when 65536 sends are outstanding, EAGAIN when the thread that calls back cannot be started.
ssize_t sidewire_sendmsg(int fd,
                         const struct msghdr *msg,
                         int flags,
                         struct sidewire_ubuf *ubuf)
SIDEWIRE_WEAK;

// Registers device memory for sends with the control message SCM_DEVMEM_DMABUF: the id that it returns goes there, and
// iov_base is then an offset into the memory. `dmabuf` is any descriptor that can be mapped for reading (a dma-buf, a
// udmabuf, a memfd) of at most 4 GiB less a page; it may be closed afterwards. `ifindex` is the device that the sends leave
// by, as with the kernel's NETDEV_CMD_BIND_TX; 0 stands for any. It holds in the network namespace of the calling thread.
//
// -1 and EINVAL for memory of no or too many bytes, ENODEV when there is no such device, ENOBUFS beyond 1024 registrations,
// EOPNOTSUPP when the engine does not work here; else what lseek(2) or mmap(2) say.
int sidewire_dmabuf_bind(int dmabuf,
                         unsigned int ifindex)
SIDEWIRE_WEAK;

// Ends a registration. What was sent from the memory and is not acknowledged keeps it.
//
// -1 and ENOENT when there is none of that id, EOPNOTSUPP as above.
int sidewire_dmabuf_unbind(int id) SIDEWIRE_WEAK;

// Gives the socket to the kernel, a live connection with all that is queued and no byte lost (TCP_REPAIR); for instance
// before it is passed to a program without Sidewire. What the kernel has already stays there.
//
// -1 and EBADF; EPERM without CAP_NET_ADMIN; EBUSY while it is being opened; ECONNABORTED when the kernel refused
// it, and then the connection is lost.
int sidewire_to_kernel(int fd)
SIDEWIRE_WEAK;

// Fills `stats`, of `size` bytes: members that the library does not know become 0, and those that the caller does not know
// are left out.
//
// -1 and EBADF, or EFAULT.
int sidewire_socket_stats(int fd,
                          struct sidewire_socket_stats *stats,
                          size_t size)
SIDEWIRE_WEAK;

// Calls `each` with every counter of this process, under Linux's name where it has one (RetransSegs, TCPTimeouts, ...), and
// `argument`: in the calling thread, with no lock held. A name is good until `each` returns.
void sidewire_counters(void (*each)(void *argument, const char *name, uint64_t value),
                       void *argument)
SIDEWIRE_WEAK;

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SIDEWIRE_H */

//! The classic BPF program that keeps frames of other ports away from user space.
//!
//! It accepts unfragmented (or first) IPv4 fragments to this host, without a VLAN tag, that are TCP to one of our
//! local ports and addresses, or ICMP errors (types 3, 11 and 12) about a TCP segment that we sent from one. The network
//! header is found by the device type, with absolute loads that also reach bytes outside a frame's linear part.
//!
//! Ports are looked up by bisection. A few ports are matched exactly. A program that opens many connections would
//! attach a new filter for each, so the n-th rebuild since the last [`PortFilter::tighten`] covers aligned blocks of
//! 2^n ports around the program's own: at most 16 rebuilds cover everything. The demultiplexer behind the filter
//! therefore always checks again.

use super::fanout::{self, Choice, FIRST_RING};
use crate::Errno;
use crate::fd::{Fd, move_high};
use crate::raw;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::RawFd;

/// One instruction of classic BPF.
pub type Insn = libc::sock_filter;

/// Most port ranges in a program; more are merged over their narrowest gaps.
pub const MAX_SPANS: usize = 256;

/// Most local addresses that a range is matched with; with more it matches any.
pub const MAX_ADDRS: usize = 2;

/// Rebuilds with exact ports before blocks are used.
const EXACT_REBUILDS: u32 = 16;

/// Most instructions that the kernel takes (BPF_MAXINSNS).
pub const MAX_INSNS: usize = 4096;

/// Scratch words: the local address, the local port, and which socket of a group is to have the frame.
const M_LOCAL: u32 = 1;
const M_PORT: u32 = 2;
const M_MEMBER: u32 = 3;

const ETHERNET_HEADER: u32 = 14;
const ACCEPT: u32 = u32::MAX;

/// What a program decides for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One packet socket: it gets the frame or not.
    Socket(RawFd),
    /// A group of them, of which one has this descriptor: which of them gets the frame. The first one of the group gets what
    /// is not accepted, and is to drop it.
    Group(RawFd, Choice),
}

/// A range of ports and the local addresses that go with it (none: any address).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    lo: u16,
    hi: u16,
    addrs: Vec<Ipv4Addr>,
}

impl Span {
    fn covers(&self, port: u16, addr: Option<Ipv4Addr>) -> bool {
        (self.lo..=self.hi).contains(&port)
            && (self.addrs.is_empty() || addr.is_some_and(|a| self.addrs.contains(&a)))
    }

    /// Widens to hold `other` too.
    fn absorb(&mut self, other: Span) {
        self.hi = self.hi.max(other.hi);
        if self.addrs.is_empty() || other.addrs.is_empty() {
            self.addrs.clear();
            return;
        }
        for addr in other.addrs {
            if !self.addrs.contains(&addr) {
                self.addrs.push(addr);
            }
        }
        if self.addrs.len() > MAX_ADDRS {
            self.addrs.clear();
        }
    }
}

/// The set of our local ports, counted, and what the attached program covers of it.
#[derive(Debug, Default)]
pub struct PortFilter {
    entries: BTreeMap<(u16, Option<Ipv4Addr>), u32>,
    attached: Vec<Span>,
    rebuilds: u32,
    loopback: bool,
}

impl PortFilter {
    /// An empty set; `loopback` also lets frames of the loopback device pass.
    pub fn new(loopback: bool) -> PortFilter {
        PortFilter {
            loopback,
            ..PortFilter::default()
        }
    }

    /// Adds a user of a local port (of one address, or of all). True if the attached program does not cover it:
    /// attach a new one *before* a frame for it may come.
    #[must_use]
    pub fn add(&mut self, port: u16, addr: Option<Ipv4Addr>) -> bool {
        *self.entries.entry((port, addr)).or_insert(0) += 1;
        !self.covers(port, addr)
    }

    /// Removes a user of a local port. True if it was the last of the whole set, and it is worth attaching the program
    /// that drops all: not for a program that opens connections one after the other. Otherwise the attached program
    /// stays until [`PortFilter::tighten`].
    #[must_use]
    pub fn remove(&mut self, port: u16, addr: Option<Ipv4Addr>) -> bool {
        if let Some(count) = self.entries.get_mut(&(port, addr)) {
            *count -= 1;
            if *count == 0 {
                self.entries.remove(&(port, addr));
            }
        }
        self.entries.is_empty() && !self.attached.is_empty() && !self.is_loose()
    }

    /// Whether the attached program lets frames to this port and address pass.
    pub fn covers(&self, port: u16, addr: Option<Ipv4Addr>) -> bool {
        let at = self.attached.partition_point(|s| s.hi < port);
        self.attached.get(at).is_some_and(|s| s.covers(port, addr))
    }

    /// Whether the attached program accepts blocks of ports around ours. An idle program should
    /// [`PortFilter::tighten`] it and attach anew.
    pub fn is_loose(&self) -> bool {
        self.rebuilds > EXACT_REBUILDS
    }

    /// Makes the next program exact again, when many frames come that are not ours or the set has shrunk.
    pub fn tighten(&mut self) {
        self.rebuilds = 0;
    }

    /// Builds the program for the present set and has it decide in one step: a frame sees the old or the new one.
    ///
    /// # Errors
    /// ENOMEM when even a program of one range exceeds net.core.optmem_max; EBADF, ENOTSOCK.
    pub fn attach(&mut self, target: Target) -> Result<(), Errno> {
        let block_bits = self.rebuilds.saturating_sub(EXACT_REBUILDS).min(16);
        let mut max_spans = MAX_SPANS;
        loop {
            let spans = self.spans(block_bits, max_spans);
            let attached = match target {
                Target::Socket(fd) => attach(fd, &program(&spans, self.loopback, None)),
                Target::Group(fd, choice) => {
                    fanout::decide(fd, &program(&spans, self.loopback, Some(choice)))
                }
            };
            match attached {
                // The kernel charges the program to optmem_max, 20 KiB before Linux 6.7.
                Err(Errno::ENOMEM) if max_spans > 1 => max_spans /= 2,
                Err(e) => return Err(e),
                Ok(()) => {
                    self.attached = spans;
                    self.rebuilds += 1;
                    return Ok(());
                }
            }
        }
    }

    /// Sorted, disjoint ranges that cover the set: each port's aligned block of 2^`block_bits`, at most `max` ranges.
    fn spans(&self, block_bits: u32, max: usize) -> Vec<Span> {
        let mask = ((1u32 << block_bits) - 1) as u16;
        let mut spans: Vec<Span> = Vec::new();
        for &(port, addr) in self.entries.keys() {
            let next = Span {
                lo: port & !mask,
                hi: port | mask,
                addrs: addr.into_iter().collect(),
            };
            match spans.last_mut() {
                Some(last) if next.lo <= last.hi => last.absorb(next),
                Some(last) if next.lo == last.hi + 1 && next.addrs == last.addrs => {
                    last.absorb(next)
                }
                _ => spans.push(next),
            }
        }
        if spans.len() > max {
            let mut gaps: Vec<u16> = spans.windows(2).map(|w| w[1].lo - w[0].hi).collect();
            gaps.sort_unstable();
            let widest = gaps[spans.len() - max - 1];
            let mut excess = spans.len() - max;
            let mut merged: Vec<Span> = Vec::with_capacity(max);
            for span in spans {
                match merged.last_mut() {
                    Some(last) if excess > 0 && span.lo - last.hi <= widest => {
                        last.absorb(span);
                        excess -= 1;
                    }
                    _ => merged.push(span),
                }
            }
            spans = merged;
        }
        debug_assert!(spans.len() <= max && spans.windows(2).all(|w| w[0].hi < w[1].lo));
        spans
    }
}

/// Attaches a program of eBPF, already loaded, to a socket.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN on a TCP socket; EINVAL for a descriptor that is no program.
pub(crate) fn attach_loaded(fd: RawFd, program: RawFd) -> Result<(), Errno> {
    raw::setsockopt(fd, libc::SOL_SOCKET, libc::SO_ATTACH_BPF, &program)
}

/// Loads the program that accepts nothing as eBPF: attaching it costs a tenth of [`drop_all`], which the kernel
/// compiles anew for each socket.
///
/// # Errors
/// EPERM without CAP_BPF (in the initial user namespace); ENOSYS.
pub(crate) fn load_drop_all() -> Result<Fd, Errno> {
    // r0 = 0; exit
    const INSNS: [u64; 2] = [0xb7, 0x95];
    const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;
    move_high(raw::bpf_prog_load(BPF_PROG_TYPE_SOCKET_FILTER, &INSNS)?)
}

/// Attaches a program to a socket in one step.
///
/// # Errors
/// ENOMEM (net.core.optmem_max); EINVAL for a program that the kernel does not take.
pub fn attach(fd: RawFd, program: &[Insn]) -> Result<(), Errno> {
    raw::setsockopt(
        fd,
        libc::SOL_SOCKET,
        libc::SO_ATTACH_FILTER,
        &fprog(program),
    )
}

/// Takes away a socket's program.
pub(super) fn detach(fd: RawFd) -> Result<(), Errno> {
    raw::setsockopt(fd, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &0i32)
}

/// A program as setsockopt takes it.
pub(super) fn fprog(program: &[Insn]) -> libc::sock_fprog {
    libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    }
}

/// The program that accepts nothing.
pub fn drop_all() -> [Insn; 1] {
    [ret(0)]
}

/// The program that accepts ARP replies on Ethernet.
pub(crate) fn arp_replies() -> [Insn; 6] {
    let op = insn(
        libc::BPF_LD | libc::BPF_H | libc::BPF_ABS,
        ETHERNET_HEADER + 6,
    );
    let ether = u32::from(libc::ARPHRD_ETHER);
    [
        ld_ext(libc::SKF_AD_HATYPE),
        jump(libc::BPF_JEQ, ether, 0, 3),
        op,
        jump(libc::BPF_JEQ, 2, 0, 1),
        ret(ACCEPT),
        ret(0),
    ]
}

/// The program for a listening TCP socket that serves only clients on this host: frames of the loopback device pass.
/// The filter of a TCP socket runs with the data pointer at the TCP header; the device is an extension load.
pub fn only_loopback() -> [Insn; 4] {
    [
        ld_ext(libc::SKF_AD_HATYPE),
        jump(libc::BPF_JEQ, u32::from(libc::ARPHRD_LOOPBACK), 0, 1),
        ret(ACCEPT),
        ret(0),
    ]
}

fn insn(code: u32, k: u32) -> Insn {
    Insn {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

fn jump(test: u32, k: u32, jt: u8, jf: u8) -> Insn {
    Insn {
        code: (libc::BPF_JMP | test | libc::BPF_K) as u16,
        jt,
        jf,
        k,
    }
}

fn ret(k: u32) -> Insn {
    insn(libc::BPF_RET | libc::BPF_K, k)
}

/// A = [X + k] of `size`.
fn ld_x(size: u32, k: u32) -> Insn {
    insn(libc::BPF_LD | size | libc::BPF_IND, k)
}

fn ld_ext(extension: i32) -> Insn {
    insn(
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        (libc::SKF_AD_OFF + extension) as u32,
    )
}

fn alu(op: u32, k: u32) -> Insn {
    insn(libc::BPF_ALU | op | libc::BPF_K, k)
}

/// X = X + 4 times the low nibble of byte [X + k]: from one IP header to what it carries.
fn skip_ip_header(out: &mut Vec<Insn>, k: u32) {
    out.extend([
        ld_x(libc::BPF_B, k),
        alu(libc::BPF_AND, 15),
        alu(libc::BPF_LSH, 2),
        insn(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X, 0),
        insn(libc::BPF_MISC | libc::BPF_TAX, 0),
    ]);
}

/// Drops the frame unless A == k.
fn require(out: &mut Vec<Insn>, k: u32) {
    out.extend([jump(libc::BPF_JEQ, k, 1, 0), ret(0)]);
}

/// Drops a later fragment; X + k is its IP header.
fn refuse_later_fragment(out: &mut Vec<Insn>, k: u32) {
    out.extend([
        ld_x(libc::BPF_H, k + 6),
        jump(libc::BPF_JSET, 0x1fff, 0, 1),
        ret(0),
    ]);
}

/// A = the local port, X + 0 is the TCP header; M_MEMBER = the socket that `choice` gives the connection to.
fn choose(out: &mut Vec<Insn>, choice: Choice) {
    let store = |k| insn(libc::BPF_ST, k);
    out.extend([
        store(M_PORT),
        ld_x(libc::BPF_H, 0),
        store(M_MEMBER),
        insn(libc::BPF_LD | libc::BPF_MEM, M_PORT),
        insn(libc::BPF_LDX | libc::BPF_MEM, M_MEMBER),
        insn(libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X, 0),
        alu(libc::BPF_MUL, choice.factor()),
        alu(libc::BPF_RSH, Choice::SHIFT),
        alu(libc::BPF_AND, Choice::MASK),
        alu(libc::BPF_ADD, FIRST_RING),
        store(M_MEMBER),
        insn(libc::BPF_LD | libc::BPF_MEM, M_PORT),
    ]);
}

/// The program for a set of ranges. With `choice` it is one for a group, which sees frames from their network header on.
fn program(spans: &[Span], loopback: bool, choice: Option<Choice>) -> Vec<Insn> {
    if spans.is_empty() {
        return drop_all().to_vec();
    }
    let store = |k| insn(libc::BPF_ST, k);
    let ether = u32::from(libc::ARPHRD_ETHER);
    let lo = u32::from(libc::ARPHRD_LOOPBACK);
    let mut out = Vec::with_capacity(64 + spans.len() * 8);
    out.push(ld_ext(libc::SKF_AD_PKTTYPE));
    require(&mut out, u32::from(libc::PACKET_HOST));
    out.push(ld_ext(libc::SKF_AD_VLAN_TAG_PRESENT));
    require(&mut out, 0);
    let accept: &[Insn] = if choice.is_some() {
        // What is no segment has a socket as well.
        let first = insn(libc::BPF_LD | libc::BPF_IMM, FIRST_RING);
        out.extend([first, store(M_MEMBER)]);
        &[
            insn(libc::BPF_LD | libc::BPF_MEM, M_MEMBER),
            insn(libc::BPF_RET | libc::BPF_A, 0),
        ]
    } else {
        &[ret(ACCEPT)]
    };
    // X = length of the link-layer header: Ethernet's, or none.
    out.push(ld_ext(libc::SKF_AD_HATYPE));
    let header = if choice.is_some() { 0 } else { ETHERNET_HEADER };
    out.push(insn(libc::BPF_LDX | libc::BPF_IMM, header));
    if loopback {
        out.extend([
            jump(libc::BPF_JEQ, ether, 2, 0),
            jump(libc::BPF_JEQ, lo, 1, 0),
        ]);
    } else {
        out.extend([
            jump(libc::BPF_JEQ, lo, 0, 1),
            ret(0),
            jump(libc::BPF_JEQ, ether, 1, 0),
        ]);
    }
    out.push(insn(libc::BPF_LDX | libc::BPF_IMM, 0));
    out.extend([ld_x(libc::BPF_B, 0), alu(libc::BPF_AND, 0xf0)]);
    require(&mut out, 0x40);
    refuse_later_fragment(&mut out, 0);
    out.extend([ld_x(libc::BPF_W, 16), store(M_LOCAL), ld_x(libc::BPF_B, 9)]);
    let mut tcp = Vec::new();
    skip_ip_header(&mut tcp, 0);
    tcp.push(ld_x(libc::BPF_H, 2));
    if let Some(choice) = choice {
        choose(&mut tcp, choice);
    }
    let mut icmp = Vec::new();
    require(&mut icmp, libc::IPPROTO_ICMP as u32);
    skip_ip_header(&mut icmp, 0);
    // Destination unreachable, time exceeded or parameter problem; the IP header that it is about starts 8 bytes on.
    icmp.extend([
        ld_x(libc::BPF_B, 0),
        jump(libc::BPF_JEQ, 3, 3, 0),
        jump(libc::BPF_JEQ, 11, 2, 0),
        jump(libc::BPF_JEQ, 12, 1, 0),
        ret(0),
    ]);
    icmp.push(ld_x(libc::BPF_B, 8 + 9));
    require(&mut icmp, libc::IPPROTO_TCP as u32);
    refuse_later_fragment(&mut icmp, 8);
    icmp.extend([ld_x(libc::BPF_W, 8 + 12), store(M_LOCAL)]);
    skip_ip_header(&mut icmp, 8);
    icmp.push(ld_x(libc::BPF_H, 8));
    tcp.push(insn(libc::BPF_JMP | libc::BPF_JA, icmp.len() as u32));
    out.push(jump(
        libc::BPF_JEQ,
        libc::IPPROTO_TCP as u32,
        0,
        tcp.len() as u8,
    ));
    out.append(&mut tcp);
    out.append(&mut icmp);
    bisect(spans, accept, &mut out);
    debug_assert!(out.len() <= MAX_INSNS);
    out
}

/// A = port: finds its range by bisection, and ends with `accept` there.
fn bisect(spans: &[Span], accept: &[Insn], out: &mut Vec<Insn>) {
    if let [span] = spans {
        out.extend([jump(libc::BPF_JGE, u32::from(span.lo), 1, 0), ret(0)]);
        out.extend([jump(libc::BPF_JGT, u32::from(span.hi), 0, 1), ret(0)]);
        if span.addrs.is_empty() {
            out.extend_from_slice(accept);
            return;
        }
        out.push(insn(libc::BPF_LD | libc::BPF_MEM, M_LOCAL));
        for addr in &span.addrs {
            out.push(jump(libc::BPF_JEQ, u32::from(*addr), 0, accept.len() as u8));
            out.extend_from_slice(accept);
        }
        out.push(ret(0));
        return;
    }
    let (left, right) = spans.split_at(spans.len() / 2);
    // The jump over the left half may be longer than the 8 bits of a conditional jump.
    out.push(jump(libc::BPF_JGE, u32::from(right[0].lo), 0, 1));
    let over = out.len();
    out.push(insn(libc::BPF_JMP | libc::BPF_JA, 0));
    bisect(left, accept, out);
    out[over].k = (out.len() - over - 1) as u32;
    bisect(right, accept, out);
}

#[cfg(test)]
mod tests;

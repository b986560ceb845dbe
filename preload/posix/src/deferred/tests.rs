use super::*;
use crate::iov::ProgramIov;
use crate::memory::Arenas;
use sidewire_engine::memory::{IovIter, Memory};
use sidewire_link::fd::Fd;
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixDatagram;

/// Bytes before the payload of each frame.
const HEAD: usize = 76;

/// Most payload that is left in the queue: the socket pair's own bound is not met, and its kernel charges the sender.
const MAX: usize = 10_000;

/// A queue of frames that a socket pair stands in for.
struct Queue {
    sender: UnixDatagram,
    frames: Arc<DeferredFrames>,
    arenas: Arenas,
    made: u8,
}

impl Queue {
    fn new() -> Self {
        let (sender, receiver) = UnixDatagram::pair().unwrap();
        let fd = Arc::new(Fd::from_raw(receiver.into_raw_fd()));
        Self {
            sender,
            frames: DeferredFrames::new(FrameQueue::new(fd), i32::MAX, MAX),
            arenas: Arenas::new(),
            made: 0,
        }
    }

    /// A frame comes and is left in the queue; its payload is known by its first byte.
    fn come(&mut self, len: usize) -> (Frag, Vec<u8>) {
        self.made += 1;
        let payload: Vec<u8> = (0..len).map(|i| self.made.wrapping_add(i as u8)).collect();
        let frame = [vec![0xee; HEAD], payload.clone()].concat();
        assert_eq!(self.sender.send(&frame).unwrap(), frame.len());
        let room = self.arenas.rx_reserve(len).unwrap();
        let room = self.arenas.rx_commit(room, len);
        (self.frames.push(HEAD, room), payload)
    }

    fn bytes(&mut self, frag: &Frag) -> Vec<u8> {
        let mut bytes = vec![0; frag.len as usize];
        self.arenas.read(frag, &mut bytes).unwrap();
        bytes
    }
}

/// What a reader gets of a part of `frag`, in parts of `part` bytes.
fn read(frag: &Frag, off: u32, len: u32, part: usize) -> Vec<u8> {
    let mut out = vec![0; len as usize];
    let iov: Vec<iovec> = out
        .chunks_mut(part)
        .map(|c| iovec {
            iov_base: c.as_mut_ptr().cast(),
            iov_len: c.len(),
        })
        .collect();
    let piece = Frag {
        mem: frag.mem.clone(),
        off: frag.off + off,
        len,
    };
    let mut iter = ProgramIov::new(&iov).taking(true);
    iter.copy_out(&piece).unwrap();
    assert_eq!(iter.remaining(), 0);
    out
}

#[test]
fn a_reader_gets_the_payload_from_the_queue() {
    let mut q = Queue::new();
    for part in [5000, 1234, 5000 / MAX_PARTS + 1, 7] {
        let (frag, payload) = q.come(5000);
        assert!(Deferred::of(&frag).is_some());
        assert_eq!(read(&frag, 0, 5000, part), payload);
        assert!(Deferred::of(&frag).is_none());
        assert!(!q.frames.any());
    }
}

#[test]
fn a_payload_is_read_in_pieces_of_any_size() {
    let mut q = Queue::new();
    for sizes in [
        [1, 1, 2998],
        [1000, 1000, 1000],
        [1600, 700, 700],
        [2999, 0, 1],
        [100, 2800, 100],
    ] {
        let (frag, payload) = q.come(3000);
        let mut got = Vec::new();
        for size in sizes {
            let off = got.len() as u32;
            got.extend(read(&frag, off, size, 4096));
        }
        assert_eq!(got, payload, "{sizes:?}");
        assert!(!q.frames.any());
    }
}

#[test]
fn small_reads_do_not_copy_their_beginning_again_and_again() {
    let mut q = Queue::new();
    let (frag, payload) = q.come(3000);
    assert_eq!(read(&frag, 0, 10, 10), payload[..10]);
    assert!(Deferred::of(&frag).is_some());
    assert_eq!(read(&frag, 10, 10, 10), payload[10..20]);
    assert!(Deferred::of(&frag).is_none());
    assert_eq!(read(&frag, 20, 2980, 2980), payload[20..]);
}

#[test]
fn what_is_looked_at_is_brought_and_stays() {
    let mut q = Queue::new();
    let (frag, payload) = q.come(3000);
    assert_eq!(q.bytes(&frag), payload);
    assert!(!q.frames.any());
    assert_eq!(q.bytes(&frag), payload);
    assert_eq!(read(&frag, 0, 3000, 3000), payload);

    // Not by a cursor that only looks, either.
    let (frag, payload) = q.come(3000);
    let mut out = vec![0; 3000];
    let iov = [iovec {
        iov_base: out.as_mut_ptr().cast(),
        iov_len: 3000,
    }];
    ProgramIov::new(&iov).copy_out(&frag).unwrap();
    assert_eq!(out, payload);
    assert_eq!(read(&frag, 0, 3000, 3000), payload);
}

#[test]
fn a_later_one_brings_those_before_it() {
    let mut q = Queue::new();
    let came: Vec<_> = (0..4).map(|_| q.come(2500)).collect();
    assert_eq!(read(&came[2].0, 0, 2500, 2500), came[2].1);
    assert!(Deferred::of(&came[0].0).is_none() && Deferred::of(&came[1].0).is_none());
    assert!(Deferred::of(&came[3].0).is_some());
    for (frag, payload) in &came[..2] {
        assert_eq!(&read(frag, 0, 2500, 2500), payload);
    }
    assert_eq!(q.bytes(&came[3].0), came[3].1);
}

#[test]
fn what_nobody_wants_leaves_the_queue_with_its_turn() {
    let mut q = Queue::new();
    let (unwanted, _) = q.come(2500);
    let (half, payload_of_half) = q.come(2500);
    let (last, payload) = q.come(2500);
    drop(unwanted);
    assert_eq!(read(&half, 0, 10, 10), payload_of_half[..10]);
    drop(half);
    assert_eq!(read(&last, 0, 2500, 2500), payload);
    assert!(!q.frames.any());
}

#[test]
fn the_queue_holds_no_more_than_its_bound() {
    let mut q = Queue::new();
    let came: Vec<_> = (0..6).map(|_| q.come(3000)).collect();
    let left: Vec<_> = came.iter().map(|c| Deferred::of(&c.0).is_some()).collect();
    assert_eq!(left, [false, false, false, true, true, true]);
    for (frag, payload) in &came {
        assert_eq!(&q.bytes(frag), payload);
    }
}

#[test]
fn a_reader_that_cannot_be_written_to_loses_nothing() {
    let mut q = Queue::new();
    let (frag, payload) = q.come(3000);
    let at = crate::syscall::map_anonymous(2 * 4096).unwrap();
    // SAFETY: our own fresh mapping.
    unsafe {
        let hole = at.add(4096);
        syscalls::syscall!(syscalls::Sysno::mprotect, hole, 4096, libc::PROT_READ).unwrap();
    }
    let iov = [iovec {
        iov_base: at.wrapping_add(2000).cast(),
        iov_len: 3000,
    }];
    let mut iter = ProgramIov::new(&iov).taking(true);
    assert_eq!(iter.copy_out(&frag), Err(Fault));
    assert_eq!(iter.remaining(), 3000);
    assert_eq!(read(&frag, 0, 3000, 3000), payload);
}

#[test]
fn a_payload_that_the_kernel_cannot_give_is_a_fault() {
    let mut q = Queue::new();
    let (frag, _) = q.come(3000);
    // Somebody took it.
    q.frames.queue.discard();
    let mut out = [0; 3000];
    assert_eq!(q.arenas.read(&frag, &mut out), Err(Fault));
    assert_eq!(frag.mem.base(), core::ptr::null());
}

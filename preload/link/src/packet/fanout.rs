//! Packet sockets that share what comes (PACKET_FANOUT): one program decides which of them gets a frame, and whether any does.

use super::filter::{Insn, fprog};
use super::rings::MAX_RINGS;
use crate::Errno;
use crate::raw;
use std::os::fd::RawFd;

/// The place in a group of the first socket with a ring. Before it stands the one that drops all: it gets what a program
/// returns 0 for, which a load beyond the frame does as well.
pub(super) const FIRST_RING: u32 = 1;

/// Connections that are spread over rings with care.
pub const MAX_SPREAD: usize = 64;
/// Choices that are tried.
const TRIALS: u32 = 512;

/// Makes one group of these sockets, which are bound alike. The first gets everything, until a program decides.
///
/// # Errors
/// What the kernel says; the sockets are to be closed then.
pub(super) fn join(members: &[RawFd]) -> Result<(), Errno> {
    let Some((&first, others)) = members.split_first() else {
        return Ok(());
    };
    let by_program = libc::PACKET_FANOUT_CBPF;
    let set = |fd, arg: u32| raw::setsockopt(fd, libc::SOL_PACKET, libc::PACKET_FANOUT, &arg);
    set(
        first,
        (by_program | libc::PACKET_FANOUT_FLAG_UNIQUEID) << 16,
    )?;
    let group = raw::getsockopt(first, libc::SOL_PACKET, libc::PACKET_FANOUT, 0u32)?;
    (others.iter()).try_for_each(|&fd| set(fd, group & 0xffff | by_program << 16))
}

/// Has a program decide for the group of which one socket has this descriptor.
///
/// # Errors
/// ENOMEM (net.core.optmem_max); EINVAL for a program that the kernel does not take.
pub(super) fn decide(fd: RawFd, program: &[Insn]) -> Result<(), Errno> {
    raw::setsockopt(
        fd,
        libc::SOL_PACKET,
        libc::PACKET_FANOUT_DATA,
        &fprog(program),
    )
}

/// Which ring a connection's frames go to: its ports, hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    factor: u32,
}

impl Choice {
    /// What is left of the product of both ports and the factor.
    pub(super) const SHIFT: u32 = 24;
    pub(super) const MASK: u32 = MAX_RINGS as u32 - 1;

    /// One by which few of these connections, given by their ports, share a ring.
    pub(super) fn fitted(connections: impl Iterator<Item = (u16, u16)>) -> Choice {
        let ports: Vec<(u16, u16)> = connections.take(MAX_SPREAD).collect();
        let clashes = |choice: &Choice| {
            let mut taken = [0u32; MAX_RINGS];
            for &ports in &ports {
                taken[choice.ring(ports)] += 1;
            }
            taken.iter().map(|n| n * n).sum::<u32>()
        };
        // Multiples of the golden ratio's: as good as any others.
        let trials = (1..=TRIALS).map(|n| Choice {
            factor: n.wrapping_mul(0x9e37_79b9) | 1,
        });
        trials.min_by_key(clashes).unwrap_or(Choice { factor: 1 })
    }

    pub(super) fn factor(self) -> u32 {
        self.factor
    }

    /// As `filter::choose` reckons.
    pub(super) fn ring(self, ports: (u16, u16)) -> usize {
        let product = u32::from(ports.0 ^ ports.1).wrapping_mul(self.factor);
        (product >> Self::SHIFT & Self::MASK) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_one_program_are_spread() {
        // As iperf3 -P 8 has them, with the control connection; and as many clients of one server.
        let some = [
            43800, 43804, 43808, 43818, 43832, 43836, 43846, 43848, 43862,
        ];
        for ports in [some, [1, 2, 3, 4, 5, 6, 7, 8, 9]] {
            let choice = Choice::fitted(ports.iter().map(|&p| (p, 5201)));
            let mut rings: Vec<_> = ports.iter().map(|&p| choice.ring((p, 5201))).collect();
            rings.sort_unstable();
            rings.dedup();
            assert_eq!(rings.len(), ports.len());
        }
        // None at all.
        assert!(Choice::fitted([].into_iter()).ring((1, 2)) < MAX_RINGS);
    }
}

//! Numbers that a stranger must not guess: initial sequence numbers (RFC 6528) and timestamp offsets
//! (RFC 7323 §7.1), from the secrets of the namespace.

use core::hash::Hasher;
use core::net::IpAddr;

use siphasher::sip::SipHasher13;

use crate::net::Tuple;
use crate::stack::Secrets;

/// RFC 6528's clock, as Linux runs it: one tick in 64 ns.
const ISN_TICK_SHIFT: u32 = 6;

fn write_ip(h: &mut SipHasher13, ip: IpAddr) {
    match ip {
        IpAddr::V4(a) => h.write(&a.octets()),
        IpAddr::V6(a) => h.write(&a.octets()),
    }
}

/// Initial sequence number of a connection at `wall_ns` nanoseconds of the wall clock (Linux `secure_tcp_seq`). The wall
/// clock goes on when this process ends, so that the next user of the tuple begins further on.
#[must_use]
pub fn secure_tcp_seq(secrets: &Secrets, tuple: &Tuple, wall_ns: u64) -> u32 {
    let mut h = SipHasher13::new_with_key(&secrets.isn);
    write_ip(&mut h, tuple.local.ip());
    write_ip(&mut h, tuple.remote.ip());
    h.write_u16(tuple.local.port());
    h.write_u16(tuple.remote.port());
    (h.finish() as u32).wrapping_add((wall_ns >> ISN_TICK_SHIFT) as u32)
}

/// Offset of our timestamps towards a peer (Linux `secure_tcp_ts_off`): one for each pair of addresses, so that they
/// never run back for the peer. None with a tcp_timestamps of 2.
#[must_use]
pub fn secure_tcp_ts_off(secrets: &Secrets, tcp_timestamps: u8, tuple: &Tuple) -> u32 {
    if tcp_timestamps != 1 {
        return 0;
    }
    let mut h = SipHasher13::new_with_key(&secrets.ts);
    write_ip(&mut h, tuple.local.ip());
    write_ip(&mut h, tuple.remote.ip());
    h.finish() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(n: u8) -> Secrets {
        Secrets {
            isn: [n; 16],
            ts: [n; 16],
            fastopen: [0; 16],
            hash: [0; 16],
        }
    }

    fn tuple(port: u16) -> Tuple {
        Tuple {
            local: ([192, 0, 2, 1], port).into(),
            remote: ([192, 0, 2, 2], 80).into(),
        }
    }

    #[test]
    fn isn_differs_by_tuple_and_secret_and_grows_with_time() {
        let a = secure_tcp_seq(&secrets(1), &tuple(1000), 0);
        assert_ne!(a, secure_tcp_seq(&secrets(1), &tuple(1001), 0));
        assert_ne!(a, secure_tcp_seq(&secrets(2), &tuple(1000), 0));
        let later = secure_tcp_seq(&secrets(1), &tuple(1000), 6_400);
        assert_eq!(later.wrapping_sub(a), 100);
    }

    #[test]
    fn timestamp_offset_is_per_host_pair() {
        let s = secrets(3);
        assert_eq!(
            secure_tcp_ts_off(&s, 1, &tuple(1)),
            secure_tcp_ts_off(&s, 1, &tuple(2))
        );
        assert_ne!(
            secure_tcp_ts_off(&s, 1, &tuple(1)),
            secure_tcp_ts_off(&secrets(4), 1, &tuple(1))
        );
        assert_eq!(secure_tcp_ts_off(&s, 2, &tuple(1)), 0);
    }
}

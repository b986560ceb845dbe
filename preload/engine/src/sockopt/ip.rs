//! SOL_IP (SO-74..SO-77).

use sidewire_uapi::TcpState;
use sidewire_uapi::ip::{
    IP_MINTTL, IP_MTU, IP_MTU_DISCOVER, IP_PMTUDISC_DONT, IP_PROTOCOL, IP_RECVERR, IP_TOS, IP_TTL,
};

use super::socket::sk_dst_reset;
use super::{Out, int};
use crate::error::Error;
use crate::errqueue;
use crate::net::Dst;
use crate::sock::TcpSock;
use crate::stack::Cx;

/// The two ECN bits of the TOS byte, which are TCP's own.
const ECN_MASK: u8 = 3;
/// IP_PMTUDISC_OMIT, the last of its kind.
const IP_PMTUDISC_OMIT: i32 = 5;
/// What a TOS makes of SO_PRIORITY (Linux `ip_tos2prio`), by pairs of the four TOS bits.
const TOS_PRIORITY: [u32; 8] = [0, 0, 2, 2, 6, 6, 4, 4];

/// An integer option of SOL_IP may be a byte, an `int`, or nothing at all, which is 0.
fn small_int(val: &[u8]) -> i32 {
    match val {
        [] => 0,
        [b] | [b, _] | [b, _, _] => i32::from(*b),
        long => int(long).unwrap_or(0),
    }
}

/// Sets an option.
pub(super) fn set(sk: &mut TcpSock, name: i32, val: &[u8]) -> Result<(), Error> {
    let v = small_int(val);
    match name {
        IP_TOS => {
            let tos = (v as u8 & !ECN_MASK) | (sk.opts.ip_tos & ECN_MASK);
            if tos != sk.opts.ip_tos {
                sk.opts.ip_tos = tos;
                sk.opts.priority = TOS_PRIORITY[usize::from(tos & 0x1e) >> 2];
                sk_dst_reset(sk);
            }
        }
        IP_TTL => {
            if val.is_empty() || (v != -1 && !(1..=255).contains(&v)) {
                return Err(Error::Inval);
            }
            sk.opts.ip_ttl = v as i16;
        }
        IP_MINTTL => {
            if val.is_empty() {
                return Err(Error::Inval);
            }
            sk.opts.ip_min_ttl = u8::try_from(v).map_err(|_| Error::Inval)?;
        }
        IP_MTU_DISCOVER => {
            if !(IP_PMTUDISC_DONT..=IP_PMTUDISC_OMIT).contains(&v) {
                return Err(Error::Inval);
            }
            sk.opts.ip_mtu_discover = v as u8;
        }
        IP_RECVERR => {
            sk.opts.ip_recverr = v != 0;
            if v == 0 {
                errqueue::skb_errqueue_purge(sk);
            }
        }
        _ => return Err(Error::NoProtoOpt),
    }
    Ok(())
}

/// Reads an option. A room of 1 to 3 bytes gets one byte when the value fits in it (SO-75).
pub(super) fn get(sk: &TcpSock, cx: &Cx<'_, '_>, name: i32, out: Out<'_>) -> Result<usize, Error> {
    let o = &sk.opts;
    let v = match name {
        IP_TOS => o.ip_tos.into(),
        IP_TTL if o.ip_ttl < 0 => cx.sh.sysctl.ip_default_ttl.into(),
        IP_TTL => o.ip_ttl.into(),
        IP_MINTTL => o.ip_min_ttl.into(),
        IP_MTU_DISCOVER => o.ip_mtu_discover.into(),
        IP_RECVERR => o.ip_recverr.into(),
        // Linux `inet_num`, whatever the option's name says.
        IP_PROTOCOL if sk.state == TcpState::Close && !sk.bound_port => 0,
        IP_PROTOCOL => sk.tuple.local.port().into(),
        IP_MTU => {
            let dst = sk.dst.filter(|dst| dst.generation != Dst::RESET);
            dst.ok_or(Error::NotConn)?.mtu as i32
        }
        _ => return Err(Error::NoProtoOpt),
    };
    match (out.room, u8::try_from(v)) {
        (1..=3, Ok(byte)) => out.bytes(&[byte]),
        _ => out.int(v),
    }
}

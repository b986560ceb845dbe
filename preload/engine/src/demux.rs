//! From a segment's addresses to whom it belongs: Linux's `__inet_lookup`.

use core::hash::BuildHasher;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sidewire_uapi::tcp::TcpState;
use sidewire_wire::tcp_options::Signature;
use siphasher::sip::SipHasher13;

use crate::input::{Verdict, batch_end, tcp_drop, tcp_rcv_established, tcp_segs_in};
use crate::mib::{Counter, Mib};
use crate::mss::TCP_HEADER;
use crate::net::Tuple;
use crate::output::tcp_tx_space;
use crate::reply::tcp_send_reset;
use crate::segment::{Ingress, RxCsum, Segment};
use crate::stack::{Ehash, Io, SocketId, Stack};
use crate::state::tcp_done;
use crate::state_process::tcp_rcv_state_process;
use crate::timer::{TimerOutcome, fire_timer};
use crate::timewait::tcp_time_wait;

/// Up to so many bytes a segment's checksum is verified before anything else.
const CHECKSUM_BREAK: u32 = 76;

/// Keyed hashing, so that a peer cannot choose collisions.
#[derive(Clone, Debug)]
pub struct TupleHash {
    key: [u8; 16],
}

impl TupleHash {
    /// With the stack's hash secret.
    #[must_use]
    pub const fn new(key: [u8; 16]) -> Self {
        Self { key }
    }
}

impl BuildHasher for TupleHash {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_key(&self.key)
    }
}

impl Stack {
    /// Puts an entry into the table of connections, in the place of one with the same tuple.
    pub(crate) fn hash(&mut self, tuple: Tuple, entry: Ehash) {
        if self.ehash.insert(tuple, entry).is_none() {
            *self.ports.entry(tuple.local.port()).or_insert(0) += 1;
        }
    }

    /// Takes a tuple out of the table.
    pub(crate) fn unhash(&mut self, tuple: &Tuple) {
        if self.ehash.remove(tuple).is_some() {
            self.release_port(tuple.local.port());
        }
    }

    pub(crate) fn release_port(&mut self, port: u16) {
        if let Some(users) = self.ports.get_mut(&port) {
            *users -= 1;
            if *users == 0 {
                self.ports.remove(&port);
            }
        }
    }

    /// Whose listener an address is: the specific one before the wildcard.
    pub(crate) fn find_listener(&self, local: &SocketAddr) -> Option<SocketId> {
        let any: IpAddr = match local {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let port = local.port();
        self.lhash
            .get(local)
            .or_else(|| self.lhash.get(&SocketAddr::new(any, port)))
            .copied()
            .or_else(|| {
                // An IPv6 wildcard listener takes IPv4 too, unless it is IPV6_V6ONLY.
                let both = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
                let id = *self.lhash.get(&both)?;
                let v6only = self.socks.get(id)?.opts.ipv6_v6only;
                (local.is_ipv4() && !v6only).then_some(id)
            })
    }

    /// Takes one received frame. What it makes due (acks, data that may go) is sent at [`Stack::rx_batch_end`].
    pub fn rx(&mut self, io: &mut Io<'_>, frame: &mut Ingress<'_>) {
        self.sh
            .mib
            .add(Counter::InSegs, u64::from(frame.gso_segs.max(1)));
        if frame.csum == RxCsum::Bad {
            self.sh.mib.inc(Counter::InCsumErrors);
            self.count_broken(frame);
            return;
        }
        match Segment::parse(frame) {
            Ok(mut seg) => self.rx_segment(io, &mut seg),
            Err(why) => self.sh.mib.inc(why),
        }
    }

    /// The sum of a segment that is not short is looked at when the socket has counted it.
    fn count_broken(&mut self, frame: &mut Ingress<'_>) {
        let Ok(seg) = Segment::parse(frame) else {
            return;
        };
        if TCP_HEADER + u32::from(seg.opt_len) + seg.len <= CHECKSUM_BREAK {
            return;
        }
        if let Some(Ehash::Sock(id)) = self.ehash.get(&seg.tuple).copied()
            && let Some(sk) = self.socks.get_mut(id)
            && seg.ttl >= sk.opts.ip_min_ttl
        {
            tcp_segs_in(sk, &seg);
            if sk.state == TcpState::Established {
                tcp_drop(sk, &seg);
            }
        }
    }

    /// Counts a frame whose headers do not tell where its payload begins.
    pub fn malformed(&mut self) {
        self.sh.mib.inc(Counter::InHdrErrors);
    }

    /// Linux `tcp_v4_rcv`, from the look-up on.
    fn rx_segment(&mut self, io: &mut Io<'_>, seg: &mut Segment) {
        let isn = match self.ehash.get(&seg.tuple).copied() {
            Some(Ehash::Sock(id)) => return self.rx_sock(io, id, seg),
            Some(Ehash::Request(id)) if !self.listens(id) => {
                self.drop_request(id);
                None
            }
            Some(Ehash::Request(id)) => {
                if !refused(&mut self.sh.mib, seg) {
                    self.rx_request(io, id, seg);
                }
                return;
            }
            Some(Ehash::Timewait(id)) => match self.rx_timewait(io, id, seg) {
                Some(isn) => Some(isn),
                None => return,
            },
            None => None,
        };
        if let Some(id) = self.find_listener(&seg.tuple.local) {
            let min_ttl = self.socks.get(id).map_or(0, |sk| sk.opts.ip_min_ttl);
            if seg.ttl < min_ttl {
                self.sh.mib.inc(Counter::TCPMinTTLDrop);
                return;
            }
            if refused(&mut self.sh.mib, seg) {
                return;
            }
            self.rx_listen(io, id, seg, isn);
            return;
        }
        self.sh.mib.inc(Counter::NoSocket);
        // Where the kernel keeps silent the answer is ours (ER-80).
        if self.ports.contains_key(&seg.tuple.local.port()) {
            self.reset_stranger(io, seg);
        }
    }

    /// Answers RST to what belongs to no connection of ours, unless the kernel answers by itself.
    pub(crate) fn reset_stranger(&mut self, io: &mut Io<'_>, seg: &Segment) {
        if !seg.rst() && !io.net.kernel_answers(&seg.tuple) {
            tcp_send_reset(&mut self.sh, io.net, seg);
        }
    }

    /// A segment for a full socket (Linux `tcp_v4_do_rcv`).
    fn rx_sock(&mut self, io: &mut Io<'_>, id: SocketId, seg: &mut Segment) {
        let Some((sk, mut cx)) = self.borrow_bh(io, id) else {
            return;
        };
        if seg.ttl < sk.opts.ip_min_ttl {
            cx.sh.mib.inc(Counter::TCPMinTTLDrop);
            tcp_drop(sk, seg);
            return;
        }
        if refused(&mut cx.sh.mib, seg) {
            tcp_drop(sk, seg);
            return;
        }
        tcp_segs_in(sk, seg);
        let verdict = if sk.state == TcpState::Established {
            tcp_rcv_established(sk, &mut cx, seg)
        } else {
            tcp_rcv_state_process(sk, &mut cx, seg)
        };
        if verdict == Verdict::Reset {
            tcp_send_reset(cx.sh, cx.net, seg);
        }
        self.join_batch(id);
        self.settle(id);
    }

    /// Notes that a socket has something to do at the end of the batch.
    pub(crate) fn join_batch(&mut self, id: SocketId) {
        if let Some(sk) = self.socks.get_mut(id)
            && !sk.in_batch
        {
            sk.in_batch = true;
            self.sh.batch.push(id);
        }
    }

    /// True when the batch so far has opened a hole. A sender whose frames leave by several CPUs brings the missing one
    /// microseconds later, and takes a report of it for a loss.
    #[must_use]
    pub fn batch_opened_hole(&self) -> bool {
        let mut batch = self.sh.batch.iter().filter_map(|id| self.socks.get(*id));
        batch.any(|sk| sk.opened_hole && !sk.ofo_queue.is_empty())
    }

    /// The driver has no more frames for now: acks and data that the batch made due go out, once a socket.
    pub fn rx_batch_end(&mut self, io: &mut Io<'_>) {
        let mut batch = core::mem::take(&mut self.sh.batch);
        for id in batch.drain(..) {
            self.end_batch_of(io, id);
        }
        // Keeps the allocation.
        if self.sh.batch.is_empty() {
            self.sh.batch = batch;
        }
    }

    /// The same for one socket, whose next call is not to be mixed up with what the batch made due.
    pub(crate) fn end_batch_of(&mut self, io: &mut Io<'_>, id: SocketId) {
        if let Some((sk, mut cx)) = self.borrow_bh(io, id)
            && core::mem::take(&mut sk.in_batch)
        {
            sk.opened_hole = false;
            batch_end(sk, &mut cx);
            self.settle(id);
        }
    }

    /// The packet socket is writable again, or frames that were waited for have left: what stood back goes out.
    pub fn tx_space(&mut self, io: &mut Io<'_>) {
        for id in core::mem::take(&mut self.sh.tx_blocked) {
            if let Some((sk, mut cx)) = self.borrow(io, id) {
                if sk.tx_blocked || sk.tsq_throttled {
                    tcp_tx_space(sk, &mut cx);
                }
                self.settle(id);
            }
        }
    }

    /// The route table changed. Sockets compare [`crate::net::Dst::generation`] at their next frame, so that nothing is
    /// due here but a look at those that wait for a route.
    pub fn route_changed(&mut self, io: &mut Io<'_>) {
        let stranded: alloc::vec::Vec<SocketId> = self
            .socks
            .iter()
            .filter(|(_, sk)| sk.hashed && sk.dst.is_none())
            .map(|(id, _)| id)
            .collect();
        for id in stranded {
            if let Some((sk, mut cx)) = self.borrow_bh(io, id) {
                sk.data_snd_check = true;
                batch_end(sk, &mut cx);
                self.settle(id);
            }
        }
    }

    /// Timers of a socket that are due.
    pub(crate) fn sock_timers(&mut self, io: &mut Io<'_>, id: SocketId) {
        let Some((sk, mut cx)) = self.borrow_bh(io, id) else {
            return;
        };
        while let Some(timer) = sk.timers.take_due(cx.now) {
            match fire_timer(sk, &mut cx, timer) {
                TimerOutcome::Alive => {}
                TimerOutcome::Dead => tcp_done(sk, &mut cx),
                TimerOutcome::TimeWait(ns) => tcp_time_wait(sk, &mut cx, true, ns),
            }
        }
        self.settle(id);
    }
}

/// A socket without keys takes nothing that is signed (Linux `tcp_inbound_hash`), and none of the engine's has keys.
fn refused(mib: &mut Mib, seg: &Segment) -> bool {
    match seg.signature {
        Signature::None => return false,
        Signature::Md5 => mib.inc(Counter::TCPMD5Unexpected),
        Signature::Broken => mib.inc(Counter::BadOptions),
    }
    true
}

#[cfg(test)]
mod tests;

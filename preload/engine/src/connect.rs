//! `connect` and its undoing (ER-20 to ER-43).

use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;

use sidewire_uapi::tcp::TcpState;

use crate::calls::ConnectCall;
use crate::error::Error;
use crate::errqueue::sk_error_report;
use crate::event::Events;
use crate::fastopen::client::tcp_fastopen_defer_connect;
use crate::handshake::tcp_connect;
use crate::init_sock::unspecified;
use crate::isn::{secure_tcp_seq, secure_tcp_ts_off};
use crate::net::{FlowKey, Tuple};
use crate::opts::SockOpts;
use crate::output::tcp_send_active_reset;
use crate::request::mss_absent;
use crate::sndbuf::tcp_write_queue_purge;
use crate::sock::TcpSock;
use crate::stack::{Ehash, Io, SocketId, Stack, Step, StepResult, TimewaitId, WaitReason};
use crate::state::{tcp_clear_xmit_timers, tcp_need_reset, tcp_set_state};
use crate::time::{Instant, NSEC_PER_MSEC};
use crate::timewait::TimewaitSock;
use crate::window::TCP_MIN_MSS;

impl Stack {
    /// True when `connect` would start an attempt: the caller then checks the address, binds the shadow and takes a
    /// holder first. When false, `connect` answers by the socket's state alone and the address does not matter
    /// (ER-22).
    #[must_use]
    pub fn connect_is_fresh(&self, id: SocketId) -> bool {
        self.socks
            .get(id)
            .is_some_and(|sk| sk.ss_unconnected() && sk.state == TcpState::Close)
    }

    /// `connect` (Linux `__inet_stream_connect`), for a socket whose local address and port are known
    /// ([`Stack::bound`], [`Stack::autobound`]).
    ///
    /// [`Stack::take_released`] tells when the holder of an attempt may go, and that includes one that fails at once. Only
    /// `AddrNotAvail` releases nothing: the tuple is another connection's.
    ///
    /// # Errors
    /// As connect(2).
    pub fn connect(
        &mut self,
        io: &mut Io<'_>,
        id: SocketId,
        remote: SocketAddr,
        nonblock: bool,
        call: &mut ConnectCall,
    ) -> StepResult<()> {
        let Some(sk) = self.socks.get_mut(id) else {
            return Step::Ready(Err(Error::BadFd));
        };
        if !call.begun {
            if sk.ss_disconnecting {
                return Step::Ready(Err(Error::Inval));
            }
            if sk.ss_connected {
                return Step::Ready(Err(Error::IsConn));
            }
            if sk.ss_connecting {
                call.pending_error = Some(match (sk.defer_connect, call.sendmsg) {
                    (true, true) => Error::InProgress,
                    (true, false) => Error::IsConn,
                    (false, _) => Error::Already,
                });
            } else {
                if sk.state != TcpState::Close {
                    return Step::Ready(Err(Error::IsConn));
                }
                let local = sk.tuple.local;
                if let Err(e) = self.start_connect(io, id, remote) {
                    let mine = e != Error::AddrNotAvail
                        && !self
                            .released
                            .iter()
                            .any(|t| t.remote == remote && t.local.port() == local.port());
                    if mine {
                        self.released.push(Tuple { local, remote });
                    }
                    return Step::Ready(Err(e));
                }
                if self.socks.get(id).is_some_and(|sk| sk.defer_connect) {
                    return Step::Ready(Ok(())); // FO-35
                }
                call.pending_error = Some(Error::InProgress);
            }
            call.begun = true;
        }
        let Some(sk) = self.socks.get_mut(id) else {
            return Step::Ready(Err(Error::BadFd));
        };
        let disconnects = *call.disconnects.get_or_insert(sk.disconnects);
        if sk.in_state(&[TcpState::SynSent, TcpState::SynRecv]) {
            let deadline = call.timeo.deadline(io.now, nonblock, sk.opts.sndtimeo);
            if deadline <= io.now {
                return Step::Ready(Err(call.pending_error.unwrap_or(Error::InProgress)));
            }
            if call.signal {
                return Step::Ready(Err(Error::Intr));
            }
            return Step::Wait {
                reason: WaitReason::Connect,
                deadline,
            };
        }
        if disconnects != sk.disconnects {
            return Step::Ready(Err(Error::Pipe));
        }
        if sk.state == TcpState::Close {
            let err = sk.sk_err.take().unwrap_or(Error::ConnAborted);
            sk.ss_connecting = false;
            self.disconnect_sock(io, id);
            return Step::Ready(Err(err));
        }
        sk.ss_connecting = false;
        sk.ss_disconnecting = false;
        sk.ss_connected = true;
        Step::Ready(Ok(()))
    }

    /// Routes, hashes and sends the SYN (Linux `tcp_v4_connect`).
    fn start_connect(
        &mut self,
        io: &mut Io<'_>,
        id: SocketId,
        remote: SocketAddr,
    ) -> Result<(), Error> {
        let sk = self.socks.get_mut(id).ok_or(Error::BadFd)?;
        let daddr = remote.ip();
        let broadcast = matches!(daddr, IpAddr::V4(a) if a.is_broadcast());
        if daddr.is_multicast() || broadcast {
            return Err(Error::NetUnreach);
        }
        let local = sk.tuple.local;
        let saddr = Some(local.ip()).filter(|ip| !ip.is_unspecified());
        let dst = io.net.route(&FlowKey {
            daddr,
            saddr,
            oif: sk.opts.bound_dev_if,
            mark: sk.opts.mark,
            tos: sk.opts.ip_tos & !3,
        })?;
        let tuple = Tuple {
            local: SocketAddr::new(saddr.unwrap_or(dst.saddr), local.port()),
            remote,
        };
        let reused = match self.ehash.get(&tuple) {
            None => None,
            Some(Ehash::Timewait(tw)) => Some(*tw),
            Some(_) => return Err(Error::AddrNotAvail),
        };
        let inherited = match reused {
            Some(tw) => Some(
                self.timewait_unique(tw, id, io)
                    .ok_or(Error::AddrNotAvail)?,
            ),
            None => None,
        };

        let (secrets, wall_ns) = (&self.sh.secrets, io.wall_ns);
        let isn = secure_tcp_seq(secrets, &tuple, wall_ns).max(1);
        let tsoffset = secure_tcp_ts_off(secrets, self.sh.sysctl.tcp_timestamps, &tuple);
        let sk = self.socks.get_mut(id).ok_or(Error::BadFd)?;
        if sk.ts_recent_stamp != 0 && sk.tuple.remote.ip() != daddr {
            // Timestamps of another peer say nothing about this one.
            sk.ts_recent = 0;
            sk.ts_recent_stamp = 0;
            if !sk.repair.on {
                sk.write_seq = 0;
            }
        }
        if let Some(inherited) = inherited {
            sk.write_seq = inherited.write_seq;
            sk.ts_recent = inherited.ts_recent;
            sk.ts_recent_stamp = inherited.ts_recent_stamp;
        }
        sk.tuple = tuple;
        sk.dst = Some(dst);
        sk.mss_clamp = mss_absent(tuple.remote.is_ipv6());
        if !sk.repair.on {
            if sk.write_seq == 0 {
                sk.write_seq = isn;
            }
            sk.tsoffset = tsoffset;
        }
        sk.iss = sk.write_seq;
        sk.snd_una = sk.write_seq;
        sk.snd_nxt = sk.write_seq;
        sk.state = TcpState::SynSent;
        sk.hashed = true;
        sk.held = true;
        sk.ss_connecting = true;
        sk.sk_err_soft = None;
        self.hash(tuple, Ehash::Sock(id));
        let Some((sk, mut cx)) = self.borrow(io, id) else {
            return Err(Error::BadFd);
        };
        sk.ip_id = cx.jitter(u32::from(u16::MAX)) as u16;
        if tcp_fastopen_defer_connect(sk, &cx) {
            self.settle(id);
            return Ok(());
        }
        let sent = tcp_connect(sk, &mut cx);
        if sent.is_err() {
            // The attempt never was: back to CLOSE, as before it.
            sk.ss_connecting = false;
            tcp_write_queue_purge(sk, &mut cx);
            tcp_clear_xmit_timers(sk);
            sk.state = TcpState::Close;
            self.settle(id);
            if let Some(sk) = self.socks.get_mut(id) {
                forget_peer(sk);
            }
            return sent;
        }
        self.settle(id);
        Ok(())
    }

    /// The local name, on one of `ports`, of a TIME_WAIT remnant towards `remote` whose place `connect` would give to this
    /// socket (ER-43; Linux `__inet_hash_connect` finds them as it looks for a port, even ports first). The caller's holder
    /// is the socket's from then on: the remnant no longer releases it.
    pub fn claim_timewait(
        &mut self,
        id: SocketId,
        saddr: IpAddr,
        ports: &RangeInclusive<u16>,
        remote: SocketAddr,
        now: Instant,
    ) -> Option<SocketAddr> {
        let explicit = self.socks.get(id)?.bound_port;
        let chosen = self.tws.iter().filter(|(_, tw)| {
            let (from, to) = (tw.tuple.local, tw.tuple.remote);
            let fits = from.ip() == saddr && ports.contains(&from.port());
            fits && to == remote && tw.held && self.timewait_is_reusable(tw, explicit, now)
        });
        let order = |port: u16| (port % 2, port);
        let chosen = chosen.min_by_key(|(_, tw)| order(tw.tuple.local.port()));
        let chosen = chosen.map(|(tw, _)| tw)?;
        let remnant = self.tws.get_mut(chosen)?;
        remnant.held = false;
        Some(remnant.tuple.local)
    }

    /// Linux `tcp_twsk_unique`.
    fn timewait_is_reusable(&self, remnant: &TimewaitSock, explicit: bool, now: Instant) -> bool {
        let reuse = match self.sh.sysctl.tcp_tw_reuse {
            0 => false,
            2 => remnant.tuple.local.ip().is_loopback(),
            _ => true,
        };
        // After that every timestamp is newer than any that is still on its way.
        let delay = u64::from(self.sh.sysctl.tcp_tw_reuse_delay_ms) * NSEC_PER_MSEC;
        let aged = now.since(remnant.entered) > delay;
        remnant.ts_recent_stamp != 0 && (explicit || reuse && aged)
    }

    /// May a connect take a TIME_WAIT remnant's place (ER-43)? The remnant is then gone, and what the new
    /// connection continues is returned.
    fn timewait_unique(&mut self, tw: TimewaitId, id: SocketId, io: &Io<'_>) -> Option<Inherited> {
        let explicit = self.socks.get(id)?.bound_port;
        let remnant = self.tws.get(tw)?;
        if !self.timewait_is_reusable(remnant, explicit, io.now) {
            return None;
        }
        let inherited = Inherited {
            write_seq: remnant.snd_nxt.wrapping_add(65_535 + 2).max(1),
            ts_recent: remnant.ts_recent,
            ts_recent_stamp: remnant.ts_recent_stamp,
        };
        // The holder goes over to the new connection.
        if let Some(remnant) = self.tws.get_mut(tw) {
            remnant.held = false;
        }
        self.kill_timewait(tw);
        Some(inherited)
    }

    /// `connect` to AF_UNSPEC: dissolves whatever the socket is (ER-20, ER-25).
    pub fn disconnect(&mut self, io: &mut Io<'_>, id: SocketId) {
        // Not where shutdown ends a handshake: who sleeps in that is told by the error.
        if let Some(sk) = self.socks.get_mut(id) {
            sk.disconnects = sk.disconnects.wrapping_add(1);
        }
        self.disconnect_unconnected(io, id);
    }

    /// The same for shutdown (Linux `inet_shutdown`).
    pub(crate) fn disconnect_unconnected(&mut self, io: &mut Io<'_>, id: SocketId) {
        self.disconnect_sock(io, id);
        if let Some(sk) = self.socks.get_mut(id) {
            sk.ss_connecting = false;
            sk.ss_connected = false;
            sk.ss_disconnecting = false;
        }
    }

    /// Linux `tcp_disconnect`: CLOSE at once, with a RST where the peer has to know.
    pub(crate) fn disconnect_sock(&mut self, io: &mut Io<'_>, id: SocketId) {
        let Some((sk, mut cx)) = self.borrow(io, id) else {
            return;
        };
        let old = sk.state;
        let unsent_end =
            sk.snd_nxt != sk.write_seq && matches!(old, TcpState::Closing | TcpState::LastAck);
        // The RST needs the state in which it is sent.
        if sk.repair.on && old != TcpState::Listen {
            // RP-36: the connection goes on elsewhere.
            sk.sk_err = Some(Error::ConnAborted);
        } else if tcp_need_reset(old) || unsent_end {
            tcp_send_active_reset(sk, &mut cx);
            sk.sk_err = Some(Error::ConnReset);
        } else if old == TcpState::SynSent {
            sk.sk_err = Some(Error::ConnReset);
        }
        if old != TcpState::Close {
            tcp_set_state(sk, cx.sh, TcpState::Close);
        }
        tcp_clear_xmit_timers(sk);
        tcp_write_queue_purge(sk, &mut cx);
        if old == TcpState::Listen {
            self.listen_stop(io, id);
        }
        self.settle(id);
        let Some((sk, mut cx)) = self.borrow(io, id) else {
            return;
        };
        reset_to_fresh(sk, cx.sh);
        if !sk.orphan {
            cx.wake(sk, Events::OUT | Events::HUP);
            sk_error_report(sk, &mut cx);
        }
    }
}

/// What a connection takes over from the TIME_WAIT remnant whose tuple it uses.
struct Inherited {
    write_seq: u32,
    ts_recent: u32,
    ts_recent_stamp: u64,
}

/// The peer's address, and our own where the program did not choose it, are forgotten; `getsockname` goes on showing the
/// port, bound or not (Linux keeps `inet_sport`).
fn forget_peer(sk: &mut TcpSock) {
    sk.tuple.remote = unspecified(sk.v6);
    if !sk.bound_addr {
        sk.tuple.local = SocketAddr::new(unspecified(sk.v6).ip(), sk.tuple.local.port());
    }
    sk.dst = None;
}

/// First values for what a connection leaves behind; options, buffers, an error that was not read and the send sequence
/// stay (RD-26, RD-40).
fn reset_to_fresh(sk: &mut TcpSock, sh: &crate::stack::Shared) {
    let mut seq = sk.write_seq.wrapping_add(sk.max_window).wrapping_add(2);
    if seq == 0 {
        seq = 1;
    }
    forget_peer(sk);
    let fresh = TcpSock::new(sk.v6, sk.user, &sh.sysctl);
    let old = core::mem::replace(sk, fresh);
    sk.tuple = old.tuple;
    sk.opts = old.opts;
    // TCP_MAXSEG lives in what Linux clears here.
    sk.opts.maxseg = 0;
    sk.opts.window_clamp = 0;
    let defaults = SockOpts::default();
    sk.opts.rto_min_us = defaults.rto_min_us;
    sk.opts.delack_max_us = defaults.delack_max_us;
    sk.opts.peek_off = -1;
    sk.nonagle = old.nonagle;
    sk.orphan = old.orphan;
    sk.parent = old.parent;
    sk.sk_err = old.sk_err;
    sk.sk_err_soft = old.sk_err_soft;
    sk.ss_connected = old.ss_connected;
    sk.ss_connecting = old.ss_connecting;
    sk.ss_disconnecting = old.ss_disconnecting;
    sk.events = old.events;
    sk.in_batch = old.in_batch;
    sk.autocorked = old.autocorked;
    sk.bound_addr = old.bound_addr;
    sk.bound_port = old.bound_port;
    sk.wakes = old.wakes;
    sk.disconnects = old.disconnects;
    sk.write_pending = old.write_pending;
    sk.mss_cache = old.mss_cache;
    sk.ca = old.ca.fresh();
    sk.sndbuf = old.sndbuf;
    sk.ack.rcv_mss = TCP_MIN_MSS;
    sk.rcvbuf = old.rcvbuf;
    sk.tx_blocked = old.tx_blocked;
    sk.tsq_throttled = old.tsq_throttled;
    sk.timer_queued = old.timer_queued;
    sk.ip_id = old.ip_id;
    sk.rmem_alloc = old.errqueue.rmem();
    sk.errqueue = old.errqueue;
    sk.zerocopy = old.zerocopy;
    sk.tskey = old.tskey;
    sk.repair = old.repair;
    sk.saw_tstamp = false;
    sk.snd_una = old.snd_una;
    sk.snd_nxt = old.snd_nxt;
    sk.max_window = old.max_window;
    sk.rcv_nxt = old.rcv_nxt;
    sk.copied_seq = old.rcv_nxt;
    sk.rcv_wup = old.rcv_nxt;
    sk.write_seq = seq;
    // What TCP_INFO goes on showing: Linux `tcp_disconnect` leaves it to the next connect.
    sk.pmtu_cookie = old.pmtu_cookie;
    sk.advmss = old.advmss;
    sk.ecn_flags = old.ecn_flags;
    sk.rcv_ssthresh = old.rcv_ssthresh;
    sk.tuning.space = old.tuning.space;
    // What the peer's segments taught; the next connection's first windows are of it.
    sk.scaling_ratio = old.scaling_ratio;
    sk.tsoffset = old.tsoffset;
    sk.tcp_usec_ts = old.tcp_usec_ts;
    sk.pacing_rate = old.pacing_rate;
    sk.snd_wl1 = old.snd_wl1;
    sk.snd_wnd = old.snd_wnd;
    sk.rcv_wnd = old.rcv_wnd;
    sk.lsndtime = old.lsndtime;
    sk.rcv_tstamp = old.rcv_tstamp;
    sk.rate_delivered = old.rate_delivered;
    sk.rate_interval_us = old.rate_interval_us;
    sk.info.drops = old.info.drops;
    sk.retransmits = old.retransmits;
    // The next connection passes for a fast open, too.
    sk.syn_fastopen = old.syn_fastopen;
    sk.syn_fastopen_exp = old.syn_fastopen_exp;
    sk.syn_fastopen_ch = old.syn_fastopen_ch;
    sk.syn_data = old.syn_data;
}

#[cfg(test)]
mod tests;

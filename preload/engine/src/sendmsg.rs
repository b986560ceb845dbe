//! `sendmsg` on a TCP socket: Linux 6.16's `tcp_sendmsg_locked()`, phase by phase.
//!
//! [`tcp_sendmsg_locked`] is the walk of section B of `rows.toml` send-path, one small function a step; the loop over the
//! data (F) is in [`data`], sleeping (C, H) in [`wait`]. What Linux does with `goto` is an [`Exit`]; what it does by sleeping
//! is [`Step::Wait`], and the call comes back with its [`Progress`].

mod data;
#[cfg(test)]
mod tests;
mod wait;

use alloc::boxed::Box;

use sidewire_uapi::TcpState;
use sidewire_uapi::socket as so;
use sidewire_uapi::timestamping::SOF_TIMESTAMPING_TX_RECORD_MASK;

use crate::calls::Timeo;
use crate::chrono::{ChronoKind, tcp_chrono_stop};
use crate::cmsg::SockcmCookie;
use crate::error::Error;
use crate::memory::IovIter;
use crate::push::{sk_stream_write_space, tcp_push};
use crate::repair::{RepairQueue, tcp_send_rcvq};
use crate::skb::{MessageOptions, UbufId};
use crate::sock::{TcpSock, shutdown};
use crate::stack::{Caps, Cx, Io, SocketId, Stack, Step, StepResult, WaitReason};
use crate::time::Instant;
use crate::trace::{Trace, TraceStep, Zerocopy};
use crate::zerocopy::{self, ZcRequest};
use crate::{fastopen, output, tstamp};

/// Flag bits that only the kernel may use: cleared when a program passes them (A9).
const KERNEL_ONLY: i32 =
    so::MSG_SPLICE_PAGES | so::MSG_SENDPAGE_NOPOLICY | so::MSG_SENDPAGE_DECRYPTED;

/// `msg_name` as the program gave it: `msg_namelen` bytes of a `sockaddr`. Only MSG_FASTOPEN looks at it (A13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameArg<'a>(pub &'a [u8]);

/// One `sendmsg` call: its arguments, and how far it came. Kept by the caller from one [`Step::Wait`] to the next.
#[derive(Debug)]
pub struct SendCall<'a> {
    /// `MSG_*` flags.
    pub flags: i32,
    /// Control messages, already copied from the program (A6..A8).
    pub control: &'a [u8],
    /// Destination, for fast open. The caller has asked [`Stack::fastopen_connects_to`] before.
    pub name: Option<NameArg<'a>>,
    /// What the calling thread may do.
    pub caps: Caps,
    /// RLIMIT_MEMLOCK of the process in bytes, `u64::MAX` when there is no limit (ZC-17).
    pub memlock_limit: u64,
    /// The caller's own completion in place of MSG_ZEROCOPY's notifications (Linux's `msg_ubuf`): the bytes are referenced,
    /// and [`Stack::take_ubufs`] hands the cookie out when the last one is acknowledged or dropped. A call that fails does
    /// not complete.
    pub ubuf: Option<u64>,
    /// Records what the call goes through.
    pub trace: Option<Box<Trace>>,
    /// A signal is pending: do not sleep again, answer what was taken or `Intr`. Set by the caller.
    pub signal: bool,
    /// Out: the call failed with EPIPE and wants SIGPIPE for the calling thread (E4).
    pub sigpipe: bool,
    /// Out, with [`Error::Intr`]: no timeout was set, so SA_RESTART may restart the call (H5).
    pub restartable: bool,
    pub(crate) progress: Progress,
}

/// How far a call came: what Linux keeps in local variables.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) phase: Phase,
    pub(crate) sockc: SockcmCookie,
    pub(crate) sockc_err: Option<Error>,
    /// What of the control messages counts for this call's segments.
    pub(crate) message: MessageOptions,
    /// This call's notification object.
    pub(crate) uarg: Option<UbufId>,
    /// How payload enters buffers.
    pub(crate) zc: Zc,
    pub(crate) timeo: Timeo,
    pub(crate) copied: usize,
    pub(crate) copied_syn: usize,
    pub(crate) mss_now: u32,
    pub(crate) size_goal: u32,
    /// Buffers made since the backlog was looked at.
    pub(crate) process_backlog: u8,
    /// The arena was empty: when to try again (H9).
    pub(crate) vm_wait: Option<Instant>,
    /// Counted in the socket's `write_pending`.
    pub(crate) sleeps: bool,
    /// `disconnects` of the socket when the call began.
    pub(crate) disconnects: u32,
    pub(crate) fastopen: fastopen::SendProgress,
}

/// Where the call goes on when it is called again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// B1..B4: control messages, zerocopy object, dmabuf.
    #[default]
    Entry,
    /// B5: fast open.
    Fastopen,
    /// B6..B10: wait for the connection, repair, the kept cmsg error.
    Connect,
    /// H: wait for memory, then go on with the data.
    Memory,
    /// F5: the backlog was processed; go on with the data.
    Backlog,
}

/// How payload enters buffers: Linux's local `zc`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Zc {
    /// Copied into page fragments.
    #[default]
    Copy,
    /// The program's pages are referenced.
    Pin,
    /// A dma-buf is referenced; iovec bases are offsets into it.
    Dmabuf(u32),
    /// Mapped file pages are referenced (sendfile, splice): whatever the iterator pins.
    Splice,
}

/// How a phase leaves the walk: Linux's labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Sleep, then come back.
    Wait(WaitReason),
    /// The same, until then.
    WaitUntil(WaitReason, Instant),
    /// B5 is to be done, with the whole stack at hand.
    Fastopen,
    /// `out`: push, return what was taken.
    Out,
    /// `out_nopush`.
    OutNopush,
    /// `do_error`: what was taken counts more than the error.
    DoError(Error),
    /// `out_err`.
    OutErr(Error),
}

impl Exit {
    fn error(self) -> Option<Error> {
        match self {
            Self::DoError(err) | Self::OutErr(err) => Some(err),
            _ => None,
        }
    }
}

impl<'a> SendCall<'a> {
    /// A call that has not begun. `nonblock` is the descriptor's O_NONBLOCK.
    #[must_use]
    pub fn new(
        flags: i32,
        control: &'a [u8],
        name: Option<NameArg<'a>>,
        caps: Caps,
        nonblock: bool,
    ) -> Self {
        let dontwait = if nonblock { so::MSG_DONTWAIT } else { 0 }; // A12
        Self {
            flags: (flags & !KERNEL_ONLY) | dontwait,
            control,
            name,
            caps,
            memlock_limit: u64::MAX,
            ubuf: None,
            trace: None,
            signal: false,
            sigpipe: false,
            restartable: false,
            progress: Progress::default(),
        }
    }

    /// A call of sendfile's or splice's: the iterator's pages are referenced, not copied (SP-27). `more` is
    /// SPLICE_F_MORE, or that sendfile has another chunk to come.
    #[must_use]
    pub fn splice(more: bool, caps: Caps, nonblock: bool) -> Self {
        let more = if more { so::MSG_MORE } else { 0 };
        let mut call = Self::new(more, &[], None, caps, nonblock);
        call.flags |= so::MSG_SPLICE_PAGES;
        call
    }

    /// Bytes taken so far, by a call that has not ended.
    #[must_use]
    pub fn copied(&self) -> usize {
        self.progress.copied + self.progress.copied_syn
    }

    pub(crate) const fn has(&self, flag: i32) -> bool {
        self.flags & flag != 0
    }
}

impl Stack {
    /// `sendmsg`, and every call that is one in disguise (write, writev, send, sendto, sendfile).
    ///
    /// Returns the bytes taken. On [`Step::Wait`] sleep and call again with the same `call` and `iter`; before that, set
    /// `call.signal` when a signal ended the sleep.
    ///
    /// # Errors
    /// `rows.toml` send-path, sections B, C, E and H. With EPIPE `call.sigpipe` says whether the thread gets SIGPIPE.
    pub fn sendmsg(
        &mut self,
        io: &mut Io<'_>,
        id: SocketId,
        call: &mut SendCall<'_>,
        iter: &mut dyn IovIter,
    ) -> StepResult<usize> {
        if call.has(so::MSG_MORE) {
            // An ack that came before the call lets out what waited then, not the bytes that are to wait for more.
            self.end_batch_of(io, id);
        }
        core::mem::swap(&mut self.sh.trace, &mut call.trace);
        if let Some(trace) = &mut self.sh.trace {
            trace.wakes(io.now, call.signal);
        }
        if core::mem::take(&mut call.progress.sleeps)
            && let Some(sk) = self.socks.get_mut(id)
        {
            sk.write_pending = sk.write_pending.saturating_sub(1);
        }
        let step = self.sendmsg_step(io, id, call, iter);
        if let Step::Wait { reason, .. } = &step
            && *reason != WaitReason::Backlog
            && let Some(sk) = self.socks.get_mut(id)
            && !sk.fastopen_req.as_ref().is_some_and(|req| req.all_in_syn)
        {
            sk.write_pending += 1;
            call.progress.sleeps = true;
        }
        if let (Some(trace), Step::Wait { reason, .. }) = (&mut self.sh.trace, &step)
            && *reason != WaitReason::Backlog
        {
            let fastopen = call.progress.phase == Phase::Fastopen;
            trace.sleeps(*reason, fastopen, io.now);
        }
        core::mem::swap(&mut self.sh.trace, &mut call.trace);
        step
    }

    fn sendmsg_step(
        &mut self,
        io: &mut Io<'_>,
        id: SocketId,
        call: &mut SendCall<'_>,
        iter: &mut dyn IovIter,
    ) -> StepResult<usize> {
        loop {
            let Some((sk, mut cx)) = self.borrow(io, id) else {
                return Step::Ready(Err(Error::BadFd));
            };
            let exit = tcp_sendmsg_locked(sk, &mut cx, call, iter)
                .err()
                .unwrap_or(Exit::Out);
            if exit != Exit::Fastopen {
                let step = leave(sk, &mut cx, call, exit);
                self.settle(id);
                return step;
            }
            // B5 connects, and that is the whole stack's business.
            let done = self.tcp_sendmsg_fastopen(io, id, call, iter);
            self.trace_fastopen(id, call, done.err());
            if let Err(exit) = done {
                let Some((sk, mut cx)) = self.borrow(io, id) else {
                    return Step::Ready(Err(Error::BadFd));
                };
                let step = leave(sk, &mut cx, call, exit);
                self.settle(id);
                return step;
            }
            call.progress.phase = Phase::Connect;
        }
    }
}

impl Stack {
    /// Records B5: what went into the SYN when it left, and how it ended when that was not well.
    fn trace_fastopen(&mut self, id: SocketId, call: &mut SendCall<'_>, exit: Option<Exit>) {
        let Some(trace) = &mut self.sh.trace else {
            return;
        };
        let err = exit.and_then(Exit::error);
        if core::mem::replace(&mut call.progress.fastopen.traced, true) && err.is_none() {
            return;
        }
        let req = self.socks.get(id).and_then(|sk| sk.fastopen_req.as_ref());
        trace.push(TraceStep::Fastopen {
            copied_syn: req.map_or(call.progress.copied_syn, |req| req.copied as usize),
            err,
        });
    }
}

/// The function that this project is about: section B, in order. See the module's head for how to read it.
fn tcp_sendmsg_locked(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    call: &mut SendCall<'_>,
    iter: &mut dyn IovIter,
) -> Result<(), Exit> {
    if call.progress.phase == Phase::Entry {
        call.progress.disconnects = sk.disconnects;
        sockcm_cookie(sk, cx, call); // B1, B2
        zerocopy_begin(sk, cx, call, iter.remaining())?; // B3
        dmabuf_needs_zerocopy(sk, cx, call)?; // B4
        call.progress.phase = Phase::Fastopen;
    }
    same_connection(sk, call)?;
    match call.progress.phase {
        Phase::Entry | Phase::Fastopen if fastopen::wanted(sk, call) => Err(Exit::Fastopen)?, // B5
        Phase::Memory => {
            call.progress.vm_wait = None;
            wait::sk_stream_wait_memory(sk, cx, call)?; // H2
            restart(sk, cx, call);
        }
        Phase::Backlog => {
            restart(sk, cx, call);
            writable(sk, cx)?;
        }
        Phase::Entry | Phase::Fastopen | Phase::Connect => {
            output::tcp_rate_check_app_limited(sk); // B7
            let connected = wait::sk_stream_wait_connect(sk, cx, call); // B6, B8
            if let Some(err) = connected.err().and_then(Exit::error) {
                cx.trace(|| TraceStep::NotConnected {
                    state: sk.state,
                    err,
                });
            }
            connected?;
            cx.trace(|| TraceStep::Connected(sk.state));
            repair_queue(sk, cx, call, iter)?; // B9
            deferred_cmsg_error(call)?; // B10
            restart(sk, cx, call); // B11
            writable(sk, cx)?; // B12
        }
    }
    data::queue_data(sk, cx, call, iter) // B13
}

/// Somebody dissolved the connection while the call slept, and may have made another: that one gets nothing of it (Linux
/// `sk_wait_event`). A sleep in B5 is connect's, which looks for itself.
fn same_connection(sk: &TcpSock, call: &SendCall<'_>) -> Result<(), Exit> {
    let p = &call.progress;
    if p.phase != Phase::Fastopen && p.disconnects != sk.disconnects {
        return Err(Exit::DoError(Error::Pipe));
    }
    Ok(())
}

/// B1, B2: the cookie starts with the socket's timestamping flags; an error in the control messages is only kept.
fn sockcm_cookie(sk: &TcpSock, cx: &mut Cx<'_, '_>, call: &mut SendCall<'_>) {
    let p = &mut call.progress;
    p.sockc = SockcmCookie::seeded(sk.opts.tsflags);
    p.sockc_err = p.sockc.parse(call.control, &sk.opts, call.caps).err();
    if cx.sh.sysctl.message_options {
        p.message = MessageOptions {
            mark: p.sockc.mark,
            transmit_time: p.sockc.transmit_time,
        };
    }
    cx.trace(|| {
        let (messages, more) = SockcmCookie::walked(call.control, &sk.opts, call.caps);
        TraceStep::SockcmCookie {
            tsflags: p.sockc.tsflags,
            control: call.control.len(),
            messages,
            more,
            err: p.sockc_err,
        }
    });
}

/// B3: gets the notification object of a MSG_ZEROCOPY call and decides how payload enters buffers.
fn zerocopy_begin(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    call: &mut SendCall<'_>,
    size: usize,
) -> Result<(), Exit> {
    let asked = call.has(so::MSG_ZEROCOPY | so::MSG_SPLICE_PAGES) || call.ubuf.is_some();
    if size == 0 || !asked {
        cx.trace(|| {
            TraceStep::Zerocopy(if asked {
                Zerocopy::NoBytes
            } else {
                Zerocopy::None
            })
        });
        return Ok(()); // B3b
    }
    // Without a route yet, the device's abilities are unknown and Linux's route_caps are empty.
    let sg = sk.dst.is_some_and(|d| d.sg);
    if let Some(cookie) = call.ubuf {
        let uarg = zerocopy::caller_ubuf(sk, cookie);
        call.progress.uarg = Some(uarg);
        if sg {
            call.progress.zc = Zc::Pin;
        } else {
            zerocopy::mark_copied(sk, uarg);
        }
        cx.trace(|| TraceStep::Zerocopy(Zerocopy::Caller { sg }));
    } else if call.has(so::MSG_ZEROCOPY) {
        if !sk.opts.zerocopy {
            cx.trace(|| TraceStep::Zerocopy(Zerocopy::NotEnabled));
            return Ok(()); // B3a
        }
        let p = &mut call.progress;
        let dmabuf_id = p.sockc_err.map_or(p.sockc.dmabuf_id, |_| 0);
        let request = ZcRequest {
            size: size as u64,
            devmem: dmabuf_id != 0,
            ipc_lock: call.caps.ipc_lock,
            memlock_limit: call.memlock_limit,
        };
        let Some(uarg) = zerocopy::msg_zerocopy_realloc(sk, cx, &request) else {
            cx.trace(|| TraceStep::Zerocopy(Zerocopy::NoBufs));
            return Err(Exit::OutErr(Error::NoBufs));
        };
        cx.trace(|| {
            let (id, range) = sk.zerocopy.last_id(uarg);
            TraceStep::Zerocopy(Zerocopy::Id { id, range, sg })
        });
        p.uarg = Some(uarg);
        if sg {
            p.zc = Zc::Pin;
        } else {
            zerocopy::mark_copied(sk, uarg); // B3c
        }
        if dmabuf_id != 0 {
            let binding = zerocopy::dmabuf_binding(sk, cx, dmabuf_id);
            cx.trace(|| TraceStep::Dmabuf {
                id: dmabuf_id,
                err: binding.err(),
            });
            binding.map_err(Exit::OutErr)?; // B3d
            p.zc = Zc::Dmabuf(dmabuf_id);
        }
    } else if call.has(so::MSG_SPLICE_PAGES) && sg {
        call.progress.zc = Zc::Splice;
        cx.trace(|| TraceStep::Zerocopy(Zerocopy::Splice));
    }
    Ok(())
}

/// B4: a dma-buf can only be sent by zerocopy.
fn dmabuf_needs_zerocopy(
    sk: &TcpSock,
    cx: &mut Cx<'_, '_>,
    call: &SendCall<'_>,
) -> Result<(), Exit> {
    let p = &call.progress;
    let zerocopy = call.has(so::MSG_ZEROCOPY) && sk.opts.zerocopy;
    if p.sockc_err.is_none() && p.sockc.dmabuf_id != 0 && !zerocopy {
        cx.trace(|| TraceStep::Dmabuf {
            id: p.sockc.dmabuf_id,
            err: Some(Error::Inval),
        });
        return Err(Exit::OutErr(Error::Inval));
    }
    Ok(())
}

/// B9: in repair mode data goes where TCP_REPAIR_QUEUE says.
fn repair_queue(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    call: &mut SendCall<'_>,
    iter: &mut dyn IovIter,
) -> Result<(), Exit> {
    if !sk.repair.on {
        return Ok(());
    }
    cx.trace(|| TraceStep::Repair(sk.repair.queue));
    match sk.repair.queue {
        RepairQueue::Send => Ok(()),
        RepairQueue::None => Err(Exit::OutErr(Error::Inval)),
        RepairQueue::Recv => match tcp_send_rcvq(sk, cx, iter) {
            Ok(n) => {
                call.progress.copied = n;
                Err(Exit::OutNopush)
            }
            Err(err) => {
                // Linux leaves by `out_nopush`: the id stays taken.
                if call.ubuf.is_none()
                    && let Some(uarg) = call.progress.uarg.take()
                {
                    zerocopy::net_zcopy_put(sk, cx, uarg);
                }
                Err(Exit::OutErr(err))
            }
        },
    }
}

/// B10: only now is an error in the control messages the call's.
fn deferred_cmsg_error(call: &SendCall<'_>) -> Result<(), Exit> {
    match call.progress.sockc_err {
        Some(err) => Err(Exit::OutErr(err)),
        None => Ok(()),
    }
}

/// B11 (Linux's label `restart`): the sizes; they hold until the next sleep (D6).
fn restart(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, call: &mut SendCall<'_>) {
    let (mss_now, size_goal) = output::tcp_send_mss(sk, cx, call.flags as u32);
    call.progress.mss_now = mss_now;
    call.progress.size_goal = size_goal;
    cx.trace(|| TraceStep::SendMss { mss_now, size_goal });
}

/// B12: a pending error or a closed send side ends the call, one of 0 bytes too (SP-24).
fn writable(sk: &TcpSock, cx: &mut Cx<'_, '_>) -> Result<(), Exit> {
    if sk.sk_err.is_some() || sk.shutdown & shutdown::SEND != 0 {
        cx.trace(|| TraceStep::Unwritable { err: sk.sk_err });
        return Err(Exit::DoError(Error::Pipe));
    }
    Ok(())
}

/// The labels at the function's end (B14, B15, E).
fn leave(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    call: &mut SendCall<'_>,
    exit: Exit,
) -> StepResult<usize> {
    match exit {
        Exit::Wait(reason) => Step::Wait {
            reason,
            deadline: wait::wake_at(sk, cx, call),
        },
        Exit::WaitUntil(reason, deadline) => Step::Wait { reason, deadline },
        Exit::Out | Exit::Fastopen => Step::Ready(Ok(out(sk, cx, call))),
        Exit::OutNopush => Step::Ready(Ok(out_nopush(sk, cx, call))),
        Exit::DoError(err) => {
            data::tcp_remove_empty_skb(sk, cx); // E1
            if call.progress.copied + call.progress.copied_syn > 0 {
                Step::Ready(Ok(out(sk, cx, call)))
            } else {
                Step::Ready(Err(out_err(sk, cx, call, err)))
            }
        }
        Exit::OutErr(err) => Step::Ready(Err(out_err(sk, cx, call, err))),
    }
}

/// B14: timestamp request on the tail, then the push.
fn out(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, call: &mut SendCall<'_>) -> usize {
    let p = &call.progress;
    if p.copied > 0 {
        tstamp::tcp_tx_timestamp(sk, p.sockc.tsflags);
        if p.sockc.tsflags & SOF_TIMESTAMPING_TX_RECORD_MASK != 0 {
            cx.trace(|| TraceStep::TxTimestamp {
                tsflags: p.sockc.tsflags & SOF_TIMESTAMPING_TX_RECORD_MASK,
            });
        }
        sk.send_run.note(cx.now, cx.sh.last_send);
        cx.sh.last_send = cx.now;
        let nonagle = sk.nonagle;
        tcp_push(sk, cx, call.flags, p.mss_now, nonagle, p.size_goal);
    }
    out_nopush(sk, cx, call)
}

/// B15: what the call returns.
fn out_nopush(sk: &mut TcpSock, cx: &mut Cx<'_, '_>, call: &mut SendCall<'_>) -> usize {
    if let Some(uarg) = call.progress.uarg.take() {
        zerocopy::net_zcopy_put(sk, cx, uarg);
    }
    let p = &call.progress;
    cx.trace(|| TraceStep::Returned {
        copied: p.copied,
        copied_syn: p.copied_syn,
    });
    p.copied + p.copied_syn
}

/// E2..E5: gives the zerocopy id back, finds the real error, decides about SIGPIPE.
pub(crate) fn out_err(
    sk: &mut TcpSock,
    cx: &mut Cx<'_, '_>,
    call: &mut SendCall<'_>,
    err: Error,
) -> Error {
    if let Some(uarg) = call.progress.uarg.take() {
        zerocopy::net_zcopy_put_abort(sk, cx, uarg);
    }
    let err = sk_stream_error(sk, call, err);
    cx.trace(|| TraceStep::Failed {
        err,
        sigpipe: call.sigpipe,
    });
    if err == Error::Again && tcp_rtx_and_write_queues_empty(sk) {
        sk_stream_write_space(sk, cx); // E5
        tcp_chrono_stop(sk, cx, ChronoKind::SndbufLimited);
    }
    err
}

/// E3, E4 (Linux `sk_stream_error`).
fn sk_stream_error(sk: &mut TcpSock, call: &mut SendCall<'_>, err: Error) -> Error {
    if err != Error::Pipe {
        return err; // E6
    }
    let err = sk.sk_err.take().unwrap_or(Error::Pipe);
    // A connection that was reset in CLOSE_WAIT has EPIPE as its sk_err (ER-13): that signals too.
    call.sigpipe = err == Error::Pipe && !call.has(so::MSG_NOSIGNAL);
    err
}

/// Nothing is unsent and nothing unacknowledged.
fn tcp_rtx_and_write_queues_empty(sk: &TcpSock) -> bool {
    sk.rtx_queue.is_empty() && sk.write_queue.is_empty()
}

/// A passive fast-open child may send before the third ack (B8).
fn tcp_passive_fastopen(sk: &TcpSock) -> bool {
    sk.state == TcpState::SynRecv && sk.fastopen_rsk
}

//! A copy of every frame to a pcapng file, when the settings ask for one.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;

use sidewire_engine::net::Transmit;
use sidewire_engine::seq::before;
use sidewire_engine::sock::{CaState, TcpSock};
use sidewire_engine::timers::IcskPending;
use sidewire_link::Errno;
use sidewire_link::frame::{RxFrame, TxFrame};
use sidewire_link::pcapng::Tee;

use sidewire_wire::tcp::{TcpFlags, TcpView};

use crate::config;
use crate::stack::wall_ns;

/// Bytes kept of each frame: all of the largest.
const SNAPLEN: usize = 1 << 16;

/// Why a frame is sent, unless it carries new data or is a plain ack.
fn why(sk: &TcpSock, tcp: &TcpView<'_>, payload: u32) -> Option<&'static str> {
    let flags = tcp.flags();
    let seq = tcp.seq();
    let syn_or_fin = flags.intersects(TcpFlags::SYN | TcpFlags::FIN);
    if flags.contains(TcpFlags::RST) {
        return Some("reset");
    }
    if flags.contains(TcpFlags::SYN) && sk.retransmits > 0 {
        return Some("retransmission: SYN timeout");
    }
    if payload == 0 && !syn_or_fin {
        let behind = seq == sk.snd_una.wrapping_sub(1);
        return match (behind, sk.icsk_pending) {
            (true, IcskPending::Probe0) => Some("zero-window probe"),
            (true, _) => Some("keepalive"),
            (false, _) if tcp.window() == 0 => Some("the window is closed"),
            (false, _) if sk.duplicate_sack.is_some() => Some("duplicate reported (DSACK)"),
            (false, _) if sk.num_sacks > 0 => Some("hole reported (SACK)"),
            _ => None,
        };
    }
    let sent_before = before(seq, sk.snd_nxt) && !flags.contains(TcpFlags::SYN);
    if !sent_before {
        return None;
    }
    Some(match sk.ca_state {
        CaState::Loss => "retransmission: RTO",
        CaState::Recovery if sk.sack_ok => "retransmission: fast, RACK",
        CaState::Recovery => "retransmission: fast, duplicate acks",
        _ if sk.icsk_pending == IcskPending::Probe0 => "zero-window probe",
        _ => "retransmission: tail loss probe",
    })
}

/// What the engine thinks about a frame: why it goes, and the state that lets it go, as `sidewire plot` reads it.
fn remark(frame: &Transmit<'_>) -> Option<String> {
    let sk = frame.sock?;
    let tcp = TcpView::parse_prefix(
        frame.headers.get(frame.l4_offset..)?,
        frame.headers.len() - frame.l4_offset,
    )
    .ok()?;
    let payload = frame.frags.iter().map(|f| f.len).sum();
    let reason = why(sk, &tcp, payload).map_or(String::new(), |why| format!("{why}; "));
    Some(format!(
        "{reason}cwnd={} ssthresh={} in_flight={} srtt_us={} rto_us={} mss={} snd_wnd={}",
        sk.snd_cwnd,
        sk.snd_ssthresh,
        sk.packets_in_flight(),
        sk.srtt_us >> 3,
        sk.rto_us,
        sk.mss_cache,
        sk.snd_wnd
    ))
}

/// Where the copies go, if anywhere.
#[derive(Debug, Default)]
pub(crate) struct Capture(Option<Tee>);

impl Capture {
    /// Opens the file that the settings name.
    pub(crate) fn open() -> Self {
        let Some(file) = config::get().pcap.as_deref() else {
            return Self::default();
        };
        let file = config::of_process(file);
        let opened = CString::new(file.as_os_str().as_bytes())
            .map_err(|_| Errno::EINVAL)
            .and_then(|path| Tee::open(&path, SNAPLEN));
        match opened {
            Ok(tee) => Self(Some(tee)),
            Err(e) => {
                let e = io::Error::from(e);
                crate::warning!("SIDEWIRE_PCAP={}: {e}", file.display());
                Self::default()
            }
        }
    }

    /// True when frames are copied.
    pub(crate) fn wanted(&self) -> bool {
        self.0.is_some()
    }

    /// A frame was handed to the device, for the reasons of `engine`.
    #[inline]
    pub(crate) fn sent(&mut self, frame: &TxFrame<'_>, engine: &Transmit<'_>) {
        if let Some(tee) = &mut self.0 {
            let remark = remark(engine);
            let written = tee.sent(wall_ns(), frame, remark.as_deref());
            self.check(written);
        }
    }

    /// A frame came.
    #[inline]
    pub(crate) fn received(&mut self, frame: &RxFrame<'_>) {
        if let Some(tee) = &mut self.0 {
            let written = tee.received(wall_ns(), frame, None);
            self.check(written);
        }
    }

    /// A file that cannot be written to gets no more.
    #[cold]
    fn check(&mut self, written: Result<(), Errno>) {
        if let Err(e) = written {
            let e = io::Error::from(e);
            crate::warning!("SIDEWIRE_PCAP: {e}; the capture ends here");
            self.0 = None;
        }
    }
}

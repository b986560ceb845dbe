//! Watches the wire of both hosts: what no TCP may ever send.

use std::collections::BTreeSet;

use sidewire_engine::seq::{after, before, max_seq};
use sidewire_wire::ipv4::Ipv4View;
use sidewire_wire::tcp::{TcpFlags, TcpOptions, TcpView};

use super::network::Side;
use crate::rng::stream_byte;

/// What one host has sent.
#[derive(Debug)]
struct Sender {
    stream: u64,
    isn: Option<u32>,
    /// Its window scale, and whether the SYN offered one.
    wscale: Option<u8>,
    /// Sequence number after the last byte it sent.
    snd_max: u32,
    /// Right edge of the window that it advertised last.
    right_edge: Option<u32>,
    /// Its last acknowledgement.
    ack: Option<u32>,
    fin: Option<u32>,
    seqs: BTreeSet<u32>,
    retransmitted: u64,
}

impl Sender {
    fn new(stream: u64) -> Self {
        Self {
            stream,
            isn: None,
            wscale: None,
            snd_max: 0,
            right_edge: None,
            ack: None,
            fin: None,
            seqs: BTreeSet::new(),
            retransmitted: 0,
        }
    }
}

/// Both hosts' wires.
#[derive(Debug)]
pub struct Observer {
    client: Sender,
    server: Sender,
}

impl Observer {
    /// The seeds of the streams that client and server send.
    #[must_use]
    pub fn new(client: u64, server: u64) -> Self {
        Self {
            client: Sender::new(client),
            server: Sender::new(server),
        }
    }

    /// Data segments that left again, from client and server.
    #[must_use]
    pub fn retransmitted(&self) -> (u64, u64) {
        (self.client.retransmitted, self.server.retransmitted)
    }

    /// Checks a packet that `side` sends.
    ///
    /// # Panics
    /// When it breaks a rule.
    pub fn sent(&mut self, side: Side, packet: &[u8]) {
        let me = match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        };
        let ip = Ipv4View::parse(packet).expect("an IP packet");
        let tcp = TcpView::parse(ip.payload()).expect("a TCP segment");
        let (flags, seq) = (tcp.flags(), tcp.seq());
        if flags.contains(TcpFlags::RST) {
            return;
        }
        let options = TcpOptions::parse(tcp.options(), flags.contains(TcpFlags::SYN));
        if flags.contains(TcpFlags::SYN) {
            assert!(
                me.isn.is_none_or(|isn| isn == seq),
                "{side:?} changed its initial number"
            );
            me.isn = Some(seq);
            me.wscale = options.wscale;
            me.snd_max = max_seq(me.snd_max, seq.wrapping_add(1));
            if me.right_edge.is_none() {
                me.snd_max = seq.wrapping_add(1);
            }
        }
        let Some(isn) = me.isn else {
            panic!("{side:?} sent {flags} before a SYN")
        };
        self.check_payload_of(side, &tcp, isn);
        let (me, peer) = match side {
            Side::Client => (&mut self.client, &self.server),
            Side::Server => (&mut self.server, &self.client),
        };
        if tcp.payload_len() > 0 {
            if !me.seqs.insert(seq) {
                me.retransmitted += 1;
            }
            if let Some(edge) = peer.right_edge {
                let end = seq.wrapping_add(tcp.payload_len() as u32);
                assert!(
                    !after(end, edge),
                    "{side:?} sent {end}, beyond the window's edge {edge}"
                );
            }
        }
        if let Some(fin) = me.fin {
            assert!(
                !after(tcp.end_seq(), fin),
                "{side:?} sent something behind its FIN"
            );
        }
        if flags.contains(TcpFlags::FIN) {
            assert!(
                me.fin.is_none_or(|fin| fin == tcp.end_seq()),
                "{side:?} moved its FIN"
            );
            me.fin = Some(tcp.end_seq());
        }
        me.snd_max = max_seq(me.snd_max, tcp.end_seq());
        if flags.contains(TcpFlags::ACK) {
            let ack = tcp.ack_seq();
            let peer_max = peer.snd_max;
            assert!(
                !after(ack, peer_max),
                "{side:?} acknowledged {ack}, only {peer_max} was sent"
            );
            assert!(
                me.ack.is_none_or(|old| !before(ack, old)),
                "{side:?} took an ack back"
            );
            me.ack = Some(ack);
            let scaled = !flags.contains(TcpFlags::SYN) && peer.wscale.is_some();
            let shift = if scaled { me.wscale.unwrap_or(0) } else { 0 };
            let edge = ack.wrapping_add(u32::from(tcp.window()) << shift);
            if let Some(old) = me.right_edge {
                assert!(
                    !before(edge, old),
                    "{side:?} shrank its window from {old} to {edge}"
                );
            }
            me.right_edge = Some(edge);
            for (left, right) in options.sack.as_slice() {
                assert!(before(*left, *right), "{side:?} sent an empty SACK block");
                assert!(
                    !after(*right, peer_max),
                    "{side:?} SACKed what was never sent"
                );
            }
        }
    }

    fn check_payload_of(&self, side: Side, tcp: &TcpView<'_>, isn: u32) {
        let stream = match side {
            Side::Client => self.client.stream,
            Side::Server => self.server.stream,
        };
        let first = u64::from(tcp.seq().wrapping_sub(isn).wrapping_sub(1));
        for (n, byte) in tcp.payload().iter().enumerate() {
            let at = first + n as u64;
            assert_eq!(
                *byte,
                stream_byte(stream, at),
                "byte {at} of {side:?}'s stream"
            );
        }
    }
}

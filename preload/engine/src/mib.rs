//! Counters, by Linux's names where Linux has them (`/proc/net/snmp`, `/proc/net/netstat`).

macro_rules! mib {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One counter's name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum Counter { $($(#[$doc])* $name,)* }

        /// Names in table order, for `status` and tests.
        pub const NAMES: &[&str] = &[$(stringify!($name),)*];
    };
}

mib! {
    /// Active opens.
    ActiveOpens,
    /// Passive opens.
    PassiveOpens,
    /// Connection attempts that failed.
    AttemptFails,
    /// Established connections that were reset.
    EstabResets,
    /// Segments received, in error or not.
    InSegs,
    /// Segments sent, retransmissions excluded.
    OutSegs,
    /// Segments retransmitted.
    RetransSegs,
    /// RSTs sent.
    OutRsts,
    /// Dropped: IP or TCP header malformed.
    InHdrErrors,
    /// Dropped: checksum wrong.
    InCsumErrors,
    /// Dropped: no socket of ours (the kernel answers, or nobody).
    NoSocket,
    /// Dropped: options malformed.
    BadOptions,
    /// Dropped: sequence outside the window.
    OutOfWindow,
    /// Dropped: RFC 7323 PAWS.
    PAWSEstab,
    /// Dropped: ack for data never sent or far too old.
    TCPAckSkipped,
    /// Challenge acks sent (RFC 5961).
    TCPChallengeACK,
    /// SYN in window.
    TCPSYNChallenge,
    /// Dropped: accept queue full.
    ListenOverflows,
    /// SYNs to listeners dropped for any reason.
    ListenDrops,
    /// Request queue full.
    TCPReqQFullDrop,
    /// Dropped: receive buffer full.
    TCPRcvQDrop,
    /// Out-of-order data queued.
    TCPOFOQueue,
    /// Out-of-order data dropped for memory.
    OfoPruned,
    /// Receive queue pruned for memory.
    RcvPruned,
    /// Zero window advertised on a full queue; data dropped.
    TCPZeroWindowDrop,
    /// Window went to zero.
    TCPToZeroWindowAdv,
    /// Window opened from zero.
    TCPFromZeroWindowAdv,
    /// Delayed acks sent.
    DelayedACKs,
    /// Duplicate segments received (DSACK sent).
    TCPDSACKOldSent,
    /// DSACKs received.
    TCPDSACKRecv,
    /// Fast recoveries entered with SACK.
    TCPSackRecovery,
    /// Fast recoveries entered without SACK.
    TCPRenoRecovery,
    /// Retransmission timeouts.
    TCPTimeouts,
    /// Spurious timeouts found by F-RTO.
    TCPSpuriousRTOs,
    /// Tail loss probes sent.
    TCPLossProbes,
    /// Tail loss probes that repaired the loss.
    TCPLossProbeRecovery,
    /// Larger segments that found the path to take them (RFC 4821).
    TCPMTUPSuccess,
    /// Those that were lost.
    TCPMTUPFail,
    /// Fast retransmissions.
    TCPFastRetrans,
    /// Retransmissions in slow start after a timeout.
    TCPSlowStartRetrans,
    /// Retransmissions that were not made because the last copy had not left the host.
    TCPSpuriousRtxHostQueues,
    /// Frames thrown away by the local qdisc.
    TCPLocalDrop,
    /// Frames refused because the packet socket was full.
    TCPLocalNoSpace,
    /// Segments with a TTL below IP_MINTTL.
    TCPMinTTLDrop,
    /// Dropped: signed (MD5 option), for a socket without keys.
    TCPMD5Unexpected,
    /// Lost retransmissions.
    TCPLostRetransmit,
    /// Recoveries undone by timestamps or DSACK.
    TCPFullUndo,
    /// Connections aborted by close with unread data.
    TCPAbortOnClose,
    /// Connections aborted by data after close.
    TCPAbortOnData,
    /// Connections aborted by a timeout.
    TCPAbortOnTimeout,
    /// Connections aborted by linger.
    TCPAbortOnLinger,
    /// Connections aborted because the program unmapped zerocopy pages.
    TCPAbortOnFault,
    /// Keepalive probes sent.
    TCPKeepAlive,
    /// Zero-window probes sent.
    TCPWinProbe,
    /// TIME_WAIT sockets made.
    TW,
    /// TIME_WAIT sockets re-used.
    TWRecycled,
    /// TIME_WAIT table at its bound.
    TCPTimeWaitOverflow,
    /// Fast open SYNs with data acked.
    TCPFastOpenActive,
    /// Fast open SYNs whose data was not acked.
    TCPFastOpenActiveFail,
    /// Fast open accepted passively.
    TCPFastOpenPassive,
    /// Fast open refused passively: bad cookie.
    TCPFastOpenPassiveFail,
    /// Fast open cookies requested.
    TCPFastOpenCookieReqd,
    /// Fast open: listener's queue was full.
    TCPFastOpenListenOverflow,
    /// Segments received that were already there.
    TCPRcvCoalesce,
    /// Autocork deferrals.
    TCPAutoCorking,
    /// Bytes that the engine copied on the way out (0 for zerocopy sends).
    BytesCopiedOut,
    /// Orphans killed at their bound.
    TCPOrphanOverflow,
    /// ICMP errors taken.
    InIcmp,
    /// Out-of-order data dropped because the buffer was full.
    TCPOFODrop,
    /// Out-of-order data that covered, or was covered by, what was queued.
    TCPOFOMerge,
    /// Duplicates of out-of-order data reported by DSACK.
    TCPDSACKOfoSent,
    /// Retransmissions received of what had come already.
    DelayedACKLost,
    /// Segments handled by header prediction.
    TCPHPHits,
    /// Dropped: flags that make no segment of a connection.
    BadFlags,
    /// Dropped: timestamp echoes what a SYN-ACK never said.
    TSEcrRejected,
    /// Old pure acks dropped by PAWS.
    PAWSOldAck,
    /// Dropped by PAWS in TIME_WAIT.
    PAWSTimewait,
    /// Handshakes ended by the peer's RST or SYN.
    EmbryonicRsts,
    /// Bare third acks dropped by TCP_DEFER_ACCEPT.
    TCPDeferAcceptDrop,
    /// ICMP errors whose quoted sequence number is not in flight.
    OutOfWindowIcmps,
    /// Connections aborted because there were too many orphans.
    TCPAbortOnMemory,
    /// Acks after a hole was filled that waited to be sent together.
    TCPAckCompressed,
}

/// The table of counters.
#[derive(Clone, Debug)]
pub struct Mib {
    counts: [u64; NAMES.len()],
}

impl Default for Mib {
    fn default() -> Self {
        Self {
            counts: [0; NAMES.len()],
        }
    }
}

impl Mib {
    /// Adds one.
    #[inline]
    pub fn inc(&mut self, c: Counter) {
        self.add(c, 1);
    }

    /// Adds `n`.
    #[inline]
    pub fn add(&mut self, c: Counter, n: u64) {
        self.counts[c as usize] += n;
    }

    /// Takes back `n` of what was added.
    pub(crate) fn sub(&mut self, c: Counter, n: u64) {
        let count = &mut self.counts[c as usize];
        *count = count.saturating_sub(n);
    }

    /// Present value.
    #[must_use]
    pub fn get(&self, c: Counter) -> u64 {
        self.counts[c as usize]
    }

    /// All counters with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        NAMES.iter().copied().zip(self.counts.iter().copied())
    }
}

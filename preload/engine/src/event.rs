//! What the engine has to say to those who wait: Linux's `sk_data_ready`, `sk_write_space`, `sk_state_change` and
//! `sk_error_report`, as the poll bits that they wake with. Each is an *edge*; levels come from [`crate::Stack::poll`].

use bitflags::bitflags;

bitflags! {
    /// Poll bits of a wake-up (Linux's numbers).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Events: u32 {
        /// Data, FIN, or a connection to accept.
        const IN = 0x1;
        /// Urgent data.
        const PRI = 0x2;
        /// Room to write, or connected.
        const OUT = 0x4;
        /// sk_err, or an entry on the error queue.
        const ERR = 0x8;
        /// Both directions are shut.
        const HUP = 0x10;
        /// The peer sent FIN.
        const RDHUP = 0x2000;
        /// Not a poll bit: a newer urgent pointer, of which the owner is told (Linux `sk_send_sigurg`, and `sk_wake_async`
        /// with POLL_PRI).
        const URG = 0x1_0000;
        /// Nor this one: the owner is told of something to read (Linux `sk_wake_async`, POLL_IN), unless somebody sleeps
        /// for it.
        const SIGIO_IN = 0x2_0000;
        /// The same of both directions being shut (POLL_HUP).
        const SIGIO_HUP = 0x4_0000;
        /// The owner is told of room to write, if somebody met its end, and of a connection (POLL_OUT).
        const SIGIO_OUT = 0x8_0000;
        /// The owner is told of an error (POLL_ERR).
        const SIGIO_ERR = 0x10_0000;
        /// [`Events::SIGIO_IN`] more than once: a FIN and an urgent byte tell twice.
        const SIGIO_IN_AGAIN = 0x20_0000;
    }
}

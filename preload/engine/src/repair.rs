//! TCP_REPAIR (spec/repair.md).

/// `TCP_REPAIR_QUEUE` value: the send queue.
pub const TCP_SEND_QUEUE: u8 = 2;

/// A socket's repair mode.
#[derive(Clone, Debug, Default)]
pub struct RepairState {
    /// TCP_REPAIR is on.
    pub on: bool,
    /// 0 none, 1 receive, 2 send.
    pub queue: u8,
}

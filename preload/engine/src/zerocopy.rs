//! MSG_ZEROCOPY notification objects (spec/zerocopy.md).

/// A socket's objects and id counter.
#[derive(Debug, Default)]
pub struct ZerocopyState {}

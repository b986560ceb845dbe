//! What the kernel knows of the network, asked and subscribed to over rtnetlink: devices, routes, neighbours. And
//! over sock_diag: connections.

mod channel;
mod device;
mod diag;
mod neighbours;
mod routes;

pub use device::{DeviceInfo, Features, LinkKind};
pub use diag::{Found, SockDiag};
pub use neighbours::{Neighbours, Resolution, Settled};
pub use routes::{Metrics, Route, Routes};

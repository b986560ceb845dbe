//! What the kernel knows of the network, asked and subscribed to over rtnetlink: devices, routes, neighbours.

mod channel;
mod device;
mod neighbours;
mod routes;

pub use device::{DeviceInfo, Features, LinkKind};
pub use neighbours::{Neighbours, Resolution, Settled};
pub use routes::{Metrics, Route, Routes};

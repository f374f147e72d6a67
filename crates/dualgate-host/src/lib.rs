//! What a node does to its host: reads objects from a folder, keeps what must survive a restart.

mod descriptors;
pub mod dns;
pub mod exchange;
pub mod firewall;
pub mod folder;
pub mod handover;
pub mod keys;
pub mod memory;
pub mod namespace;
pub mod netfilter;
pub mod network;
pub mod publish;
pub mod service_manager;
pub mod store;
pub mod virtual_ips;

pub use descriptors::raise_descriptor_limit;
pub use folder::FolderSource;
pub use keys::Keys;
pub use store::Store;

//! Protocol machines without sockets and clocks: what happened and when goes in, what is to be done comes out.

pub mod announcer;
pub mod dial;
pub mod dns;
pub mod hold_off;
pub mod lease;
pub mod ownership;
pub mod path_mtu;
pub mod random;
pub mod resolver;
pub mod writes;

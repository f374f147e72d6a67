//! What has to be done: one file per actuator, each a pure function of the snapshot.
//!
//! Planners alone know about roles. A node without a role gets the empty plan, and converging to the empty
//! plan is how a role is switched off.

pub mod proxy;

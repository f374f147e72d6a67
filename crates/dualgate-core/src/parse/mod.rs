//! From text to values: the one parser of every source.

pub mod file;
pub mod object;
pub mod site;
pub mod time;
pub mod yaml;

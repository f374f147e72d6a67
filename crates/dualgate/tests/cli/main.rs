//! The command line, as somebody uses it: the built program, its output, its exit codes.

mod check;
mod dns;
mod echo;
mod edge;
mod explain;
mod firewall;
mod help;
mod install;
mod keys;
mod lab;
mod node;
mod render;
mod support;
mod vip;

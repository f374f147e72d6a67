//! The data plane: listeners, connections, forwarding.

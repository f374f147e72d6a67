//! What a node does to its host: folder source, store, facts.

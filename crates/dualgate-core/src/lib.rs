//! The pure heart of dualgate: model, parsing, lowering, planning and routing.

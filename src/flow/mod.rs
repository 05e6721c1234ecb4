//! THE STORY: one file per transition of the flow.

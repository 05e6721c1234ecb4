//! Tests of the router as a whole, in process.

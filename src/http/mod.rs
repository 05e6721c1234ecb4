//! HTTP: thin shells over the flow, one file per resource.

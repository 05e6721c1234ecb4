//! The flow over the real catalogue and the real store, with a media child that answers at once.
//!
//! `bench` is the server without HTTP; `child` answers grants with outputs that have the right shape and files that
//! really lie in the depot; `story` runs it from upload to publication, once straight, once with every step done
//! twice, and once for every step with that step failing or its worker vanishing: the end must be the same.

pub(crate) mod bench;
mod child;

mod endings;
mod receiving;
mod relaying;
mod same_content;
mod story;

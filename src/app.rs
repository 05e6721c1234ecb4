//! The one place where traits meet backends: everything a request handler or a flow step may reach.

use reelyard_catalog as _;

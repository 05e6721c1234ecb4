//! tus uploads over HTTP (being written).

use crate::app::App;
use axum::Router;
use std::sync::Arc;

pub(crate) fn router() -> Router<Arc<App>> {
    Router::new()
}

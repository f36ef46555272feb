//! JSON Schemas of the documents.

use axum::Json;
use serde_json::Value;
use tollgate_policy::Kind;

use super::ApiError;
use super::extract::Path;

/// The schema of a kind.
pub(super) async fn read(Path(kind): Path<String>) -> Result<Json<Value>, ApiError> {
    let kind = Kind::from_name(&kind).ok_or_else(|| {
        let known = Kind::ALL.map(Kind::name).join(", ");
        ApiError::not_found(format!("`{kind}` is no kind of document; there are {known}"))
    })?;
    Ok(Json(tollgate_policy::schema(kind)))
}

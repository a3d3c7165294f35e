//! `POST /ticket`: gives a ticket for a token. A ticket opens one event stream.

use axum::{
    extract::{Request, State},
    response::Response,
};

use super::{
    Api, Problem,
    body::is_encoded,
    extract::{credentials_without_query, peer_of, with_body},
    json_response,
};
use crate::error::Error;

/// The body is read as that of every POST, and then ignored: most requests have none.
pub(super) async fn issue(State(api): State<Api>, mut request: Request) -> Result<Response, Problem> {
    let head = {
        let credentials = credentials_without_query(peer_of(request.extensions())?, &request);
        let check = || api.auth.ticket_request(&credentials);
        api.auth.with_new_keys(check(), check).await
    };
    let (asked, _ignored) = with_body(head, &mut request, &api).await?;
    if is_encoded(request.headers()) {
        return Err(Error::UnsupportedMedia.into());
    }
    Ok(json_response(&api.auth.issue_ticket(&asked)?))
}

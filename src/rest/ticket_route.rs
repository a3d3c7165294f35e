//! `POST /ticket`: gives a ticket for a token. A ticket opens one event stream.

use axum::{
    extract::{Request, State},
    response::Response,
};

use super::{Api, Problem, extract::credentials_without_query, extract::peer_of, json_response};

pub(super) async fn issue(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let credentials = credentials_without_query(peer_of(request.extensions())?, &request);
    let issue = || api.auth.issue_ticket(&credentials);
    Ok(json_response(&api.auth.with_new_keys(issue(), issue).await?))
}

//! What clients say about the nodes of a cluster, and are told: `X-Cluster-Wait` before a change, `X-Cluster-Applied` and
//! `X-Config-Stamp` after it, and `X-Config-Min-Stamp` before a look at another node.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::Method;
use cluster::Token;
use cluster::engine::Concern;

use crate::actors::replication::{Receipt, Replication, Wish};
use crate::admin::answer::Answer;

/// How long a wish that a client states is waited for.
const STATED: Duration = Duration::from_secs(5);
/// How long a look waits for the change that it is to see.
const SEEN: Duration = Duration::from_secs(5);

/// Reads what a client wishes, and waits until the node has what a look is to see.
pub async fn before(cluster: &Replication, request: &HttpRequest) -> Result<Wish, Answer> {
    let field = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap_or_default().trim());
    if let Some(stamp) = field("x-config-min-stamp").filter(|_| matches!(*request.method(), Method::GET | Method::HEAD)) {
        let token: Token = stamp.parse().map_err(|_| Answer::message(400, "X-Config-Min-Stamp: not the stamp of a change"))?;
        if !cluster.wait_for(token, SEEN).await {
            return Err(
                Answer::message(503, "the change of X-Config-Min-Stamp has not arrived at this node yet").header("Retry-After", "1")
            );
        }
    }
    match field("x-cluster-wait") {
        None => Ok(Wish::default()),
        Some(text) => match concern(text) {
            Some(concern) => Ok(Wish { concern, timeout: STATED }),
            None => Err(Answer::message(400, "X-Cluster-Wait: expected none, majority, all, or a number of nodes")),
        },
    }
}

fn concern(text: &str) -> Option<Concern> {
    match text {
        "none" => Some(Concern::None),
        "majority" => Some(Concern::Majority),
        "all" => Some(Concern::All),
        number => number.parse().ok().filter(|nodes| *nodes > 0).map(Concern::Nodes),
    }
}

/// Tells where a change is in effect.
pub fn after(answer: Answer, receipt: &Receipt) -> Answer {
    let mut answer = answer.header("X-Cluster-Applied", format!("{}/{}", receipt.applied, receipt.of));
    if receipt.unasked > 0 {
        answer = answer.header("X-Cluster-Unasked", receipt.unasked.to_string());
    }
    match &receipt.token {
        Some(token) => answer.header("X-Config-Stamp", token.to_string()),
        None => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_words_or_numbers_of_nodes() {
        assert_eq!(concern("none"), Some(Concern::None));
        assert_eq!(concern("majority"), Some(Concern::Majority));
        assert_eq!(concern("all"), Some(Concern::All));
        assert_eq!(concern("2"), Some(Concern::Nodes(2)));
        for wrong in ["", "0", "-1", "most", "2.5"] {
            assert_eq!(concern(wrong), None, "{wrong}");
        }
    }
}

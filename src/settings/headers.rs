//! Which of the gateway's own header fields are sent.

use serde_json::{Value as Json, json};

use crate::settings::value::{Kind, Value, list};

/// Fields added to answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EnabledHeaders {
    pub server: bool,
    pub via: bool,
    pub proxy_latency: bool,
    pub upstream_latency: bool,
    pub response_latency: bool,
    pub admin_latency: bool,
    pub upstream_status: bool,
    pub request_id: bool,
    server_tokens: bool,
    latency_tokens: bool,
}

impl EnabledHeaders {
    pub fn as_json(self) -> Json {
        json!({
            "server_tokens": self.server_tokens,
            "latency_tokens": self.latency_tokens,
            "Server": self.server,
            "Via": self.via,
            "X-Kong-Proxy-Latency": self.proxy_latency,
            "X-Kong-Upstream-Latency": self.upstream_latency,
            "X-Kong-Response-Latency": self.response_latency,
            "X-Kong-Admin-Latency": self.admin_latency,
            "X-Kong-Upstream-Status": self.upstream_status,
            "X-Kong-Request-Id": self.request_id,
        })
    }
}

impl Value for EnabledHeaders {
    const KIND: Kind = Kind::Array;

    fn read(name: &str, text: &str) -> Result<Self, String> {
        let mut enabled = Self::default();
        for entry in list(text) {
            match entry.to_ascii_lowercase().as_str() {
                "off" => {}
                "server_tokens" => {
                    (enabled.server_tokens, enabled.server, enabled.via) = (true, true, true);
                }
                "latency_tokens" => {
                    enabled.latency_tokens = true;
                    (enabled.proxy_latency, enabled.upstream_latency) = (true, true);
                    (enabled.response_latency, enabled.admin_latency) = (true, true);
                }
                "server" => enabled.server = true,
                "via" => enabled.via = true,
                "x-kong-proxy-latency" => enabled.proxy_latency = true,
                "x-kong-upstream-latency" => enabled.upstream_latency = true,
                "x-kong-response-latency" => enabled.response_latency = true,
                "x-kong-admin-latency" => enabled.admin_latency = true,
                "x-kong-upstream-status" => enabled.upstream_status = true,
                "x-kong-request-id" => enabled.request_id = true,
                _ => return Err(format!("{name}: invalid entry '{entry}'")),
            }
        }
        Ok(enabled)
    }
}

/// Fields added to requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpstreamHeaders {
    pub request_id: bool,
}

impl UpstreamHeaders {
    pub fn as_json(self) -> Json {
        json!({ "X-Kong-Request-Id": self.request_id })
    }
}

impl Value for UpstreamHeaders {
    const KIND: Kind = Kind::Array;

    fn read(name: &str, text: &str) -> Result<Self, String> {
        let mut enabled = Self::default();
        for entry in list(text) {
            match entry.to_ascii_lowercase().as_str() {
                "off" => {}
                "x-kong-request-id" => enabled.request_id = true,
                _ => return Err(format!("{name}: invalid entry '{entry}'")),
            }
        }
        Ok(enabled)
    }
}

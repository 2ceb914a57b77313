//! What settings say to the cluster.

use std::sync::Arc;

use ::cluster::id::NodeId;
use ::cluster::mesh::tls::Tls;
use ::cluster::mesh::{self, Security};
use uuid::Uuid;

use crate::node::StartError;
use crate::settings::{Settings, files};

/// Nodes of another name are refused. There is one name; certificates tell clusters apart.
const NAME: &str = "troop";
/// Of more nodes than this each gossips less often.
const FEW: u32 = 16;
/// Milliseconds between two rounds of gossip among many.
const SELDOM: u64 = 1_000;

/// The node's certificate, if it speaks TLS, and its id, which the certificate says.
pub struct Membership {
    pub node: Uuid,
    pub tls: Option<Arc<Tls>>,
}

impl Membership {
    /// Reads the certificate of a node with `cluster = on`; `None` for others.
    pub fn of(settings: &Settings) -> Result<Option<Self>, StartError> {
        if !settings.cluster {
            return Ok(None);
        }
        if settings.cluster_insecure {
            let prefix = || settings.prefix.display().to_string();
            let node = settings.persistent_node_id().map_err(|error| StartError::Prefix { prefix: prefix(), error })?;
            return Ok(Some(Self { node, tls: None }));
        }
        let [certificate, key, ca] = texts(settings)?;
        let tls = Tls::new(certificate.as_bytes(), key.as_bytes(), ca.as_bytes());
        let tls = tls.map_err(|error| StartError::Cluster(format!("cluster_cert, cluster_cert_key, cluster_ca_cert: {error}")))?;
        let node = Uuid::from_u128(tls.node().0);
        if settings.node_id.is_some_and(|id| id != node) {
            return Err(StartError::Cluster(format!("node_id is not that of cluster_cert, which is {node}: leave node_id unset")));
        }
        Ok(Some(Self { node, tls: Some(Arc::new(tls)) }))
    }

    /// What the cluster is told of this node.
    pub fn config(&self, settings: &Settings, hostname: &str, version: &str) -> ::cluster::Config {
        let listen = settings.cluster_listen;
        let advertise = settings
            .cluster_advertise
            .clone()
            .unwrap_or_else(|| if listen.ip().is_unspecified() { format!("{hostname}:{}", listen.port()) } else { listen.to_string() });
        let mesh = mesh::Config {
            node: NodeId(self.node.as_u128()),
            cluster: NAME.to_owned(),
            listen,
            advertise,
            seeds: settings.cluster_seeds.clone(),
            security: self.tls.clone().map_or(Security::Plaintext, Security::Tls),
        };
        let mut config = ::cluster::Config::new(mesh, settings.node_name.as_deref().unwrap_or(hostname), version);
        if settings.cluster_size_hint > FEW {
            config.engine.gossip_interval = SELDOM;
        }
        config
    }
}

/// Uses the certificates that settings name now. When they cannot be used the old ones stay.
pub fn reload(tls: &Tls, settings: &Settings) -> Result<(), StartError> {
    let [certificate, key, ca] = texts(settings)?;
    let other = |error: String| StartError::Cluster(format!("the certificates of the cluster: {error}"));
    let next = Tls::new(certificate.as_bytes(), key.as_bytes(), ca.as_bytes()).map_err(|error| other(error.to_string()))?;
    if next.node() != tls.node() {
        return Err(other(format!("they are those of node {}, and this is node {}", next.node(), tls.node())));
    }
    tls.reload(certificate.as_bytes(), key.as_bytes(), ca.as_bytes()).map_err(|error| other(error.to_string()))
}

fn texts(settings: &Settings) -> Result<[String; 3], StartError> {
    let read = |name: &str, entry: &Option<String>| {
        let text = files::pem(entry.as_deref().unwrap_or_default());
        text.map_err(|error| StartError::Cluster(format!("{name}: {error}")))
    };
    Ok([
        read("cluster_cert", &settings.cluster_cert)?,
        read("cluster_cert_key", &settings.cluster_cert_key)?,
        read("cluster_ca_cert", &settings.cluster_ca_cert)?,
    ])
}

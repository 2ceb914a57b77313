//! The types of settings and how they are read from text.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value as Json;
use uuid::Uuid;

use crate::router::Flavor;

/// What a setting looks like to people and in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    String,
    Number,
    Boolean,
    /// Written with commas.
    Array,
    /// One of several words.
    Enum(&'static [&'static str]),
}

impl Kind {
    /// As documentation writes it.
    pub fn describe(self) -> String {
        match self {
            Self::String => "string".into(),
            Self::Number => "number".into(),
            Self::Boolean => "boolean".into(),
            Self::Array => "array".into(),
            Self::Enum(words) => format!("one of {}", words.join(", ")),
        }
    }

    /// The text as JSON.
    pub fn json(self, text: &str) -> Json {
        match self {
            Self::String | Self::Enum(_) => text.into(),
            Self::Number => text.parse::<i64>().map(Json::from).or_else(|_| text.parse::<f64>().map(Json::from)).unwrap_or(Json::Null),
            Self::Boolean => boolean(text).into(),
            Self::Array => list(text).map(Json::from).collect(),
        }
    }

    /// The JSON of a setting that is not set, if it has one.
    pub fn unset(self) -> Option<Json> {
        (self == Self::Array).then(|| Json::Array(Vec::new()))
    }
}

/// A type of setting.
pub trait Value: Sized {
    const KIND: Kind;

    /// Reads the text; an empty one means that the setting is not set. The error is the whole message.
    fn read(name: &str, text: &str) -> Result<Self, String>;
}

/// `on` and `true` are true, everything else is false.
pub fn boolean(text: &str) -> bool {
    matches!(text, "on" | "true")
}

/// The entries of an array.
pub fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

impl Value for bool {
    const KIND: Kind = Kind::Boolean;

    fn read(_: &str, text: &str) -> Result<Self, String> {
        Ok(boolean(text))
    }
}

impl Value for String {
    const KIND: Kind = Kind::String;

    fn read(_: &str, text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl Value for PathBuf {
    const KIND: Kind = Kind::String;

    fn read(_: &str, text: &str) -> Result<Self, String> {
        Ok(text.into())
    }
}

impl Value for Vec<String> {
    const KIND: Kind = Kind::Array;

    fn read(_: &str, text: &str) -> Result<Self, String> {
        Ok(list(text).map(str::to_owned).collect())
    }
}

impl Value for SocketAddr {
    const KIND: Kind = Kind::String;

    fn read(name: &str, text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{name} is not an address and a port: '{text}'"))
    }
}

impl Value for Uuid {
    const KIND: Kind = Kind::String;

    fn read(name: &str, text: &str) -> Result<Self, String> {
        Uuid::try_parse(text).map_err(|_| format!("{name} must be a valid UUID"))
    }
}

macro_rules! numbers {
    ($($ty:ty),+) => {
        $(impl Value for $ty {
            const KIND: Kind = Kind::Number;

            fn read(name: &str, text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("{name} is not a number: '{text}'"))
            }
        })+
    };
}

numbers!(f64, u64, u32, u16);

impl<T: Value> Value for Option<T> {
    const KIND: Kind = T::KIND;

    fn read(name: &str, text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::read(name, text).map(Some) }
    }
}

/// Declares an enum whose variants are the words of a setting.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_meta])* $variant),+ }

        impl $name {
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl Value for $name {
            const KIND: Kind = Kind::Enum(&[$($word),+]);

            fn read(name: &str, text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("{name} has an invalid value: '{text}' ({})", [$($word),+].join(", "))),
                }
            }
        }
    };
}

words! {
    /// The least severe messages that are logged.
    LogLevel { Debug = "debug", Info = "info", Notice = "notice", Warn = "warn", Error = "error", Crit = "crit", Alert = "alert", Emerg = "emerg" }
}

words! {
    /// Where configuration is kept.
    Database {
        /// In a file under the prefix.
        Embedded = "embedded",
        /// Nowhere: it is declared, and lives in memory.
        Off = "off",
        /// In PostgreSQL: refused by this release.
        Postgres = "postgres",
        /// As Kong: refused.
        Cassandra = "cassandra",
    }
}

words! {
    /// The node's part in a hybrid deployment.
    Role { Traditional = "traditional", ControlPlane = "control_plane", DataPlane = "data_plane" }
}

words! {
    /// Sets of TLS versions and ciphers.
    CipherSuite { Modern = "modern", Intermediate = "intermediate", Old = "old", Fips = "fips", Custom = "custom" }
}

words! {
    /// Type of an error's body when the client names none.
    ErrorType { Json = "application/json", Xml = "application/xml", Html = "text/html", Plain = "text/plain" }
}

impl Value for Flavor {
    const KIND: Kind = Kind::Enum(&["traditional", "traditional_compatible", "expressions"]);

    fn read(name: &str, text: &str) -> Result<Self, String> {
        match text {
            "traditional" => Ok(Self::Traditional),
            "traditional_compatible" => Ok(Self::TraditionalCompatible),
            "expressions" => Ok(Self::Expressions),
            _ => Err(format!("{name} has an invalid value: '{text}' (traditional, traditional_compatible, expressions)")),
        }
    }
}

/// Bytes, written as `8k`, `10m`, `1g` or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl Value for Size {
    const KIND: Kind = Kind::String;

    fn read(name: &str, text: &str) -> Result<Self, String> {
        let (digits, unit) = match text.strip_suffix(|c: char| c.is_ascii_alphabetic()) {
            Some(digits) => (digits, &text[digits.len()..]),
            None => (text, ""),
        };
        let factor = match unit {
            "" => Some(1),
            "k" | "K" => Some(1 << 10),
            "m" | "M" => Some(1 << 20),
            "g" | "G" => Some(1 << 30),
            _ => None,
        };
        let number = digits.parse::<u64>().ok();
        number.zip(factor).and_then(|(n, f)| n.checked_mul(f)).map(Size).ok_or_else(|| format!("{name} is not a size: '{text}'"))
    }
}

/// A time, written as `500ms`, `60s`, `1m`, `1h`, `1d`, or a plain number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Value for Span {
    const KIND: Kind = Kind::String;

    fn read(name: &str, text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor = match &text[digits.len()..] {
            "ms" => Some(1),
            "" | "s" => Some(1000),
            "m" => Some(60_000),
            "h" => Some(3_600_000),
            "d" => Some(86_400_000),
            _ => None,
        };
        let number = digits.parse::<u64>().ok();
        let millis = number.zip(factor).and_then(|(n, f)| n.checked_mul(f));
        millis.map(|n| Span(Duration::from_millis(n))).ok_or_else(|| format!("{name} is not a time: '{text}'"))
    }
}

/// Threads that serve requests: a number, or `auto` for one a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers(pub Option<usize>);

impl Workers {
    pub fn count(self) -> usize {
        self.0.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}

impl Value for Workers {
    const KIND: Kind = Kind::String;

    fn read(name: &str, text: &str) -> Result<Self, String> {
        match text {
            "auto" | "" => Ok(Self(None)),
            text => match text.parse() {
                Ok(n @ 1..=1024) => Ok(Self(Some(n))),
                _ => Err(format!("{name} must be 'auto' or a number between 1 and 1024: '{text}'")),
            },
        }
    }
}

/// Addresses whose word on the client's address is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedIps {
    pub nets: Vec<IpNet>,
    /// `unix:`: connections over a Unix socket.
    pub unix: bool,
}

impl TrustedIps {
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.nets.iter().any(|net| net.contains(&ip))
    }
}

impl Value for TrustedIps {
    const KIND: Kind = Kind::Array;

    fn read(name: &str, text: &str) -> Result<Self, String> {
        let mut trusted = Self::default();
        for entry in list(text) {
            if entry == "unix:" {
                trusted.unix = true;
            } else if let Ok(net) = entry.parse::<IpNet>() {
                trusted.nets.push(net.trunc());
            } else if let Ok(ip) = entry.parse::<IpAddr>() {
                trusted.nets.push(ip.into());
            } else {
                return Err(format!(
                    "{name} must be a comma separated list in the form of IPv4 or IPv6 address or CIDR block or 'unix:', got '{entry}'"
                ));
            }
        }
        Ok(trusted)
    }
}

/// Name servers: addresses, with port 53 when none is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameServers(pub Vec<SocketAddr>);

impl Value for NameServers {
    const KIND: Kind = Kind::Array;

    fn read(name: &str, text: &str) -> Result<Self, String> {
        let one = |entry: &str| {
            let bare = entry.trim_start_matches('[').trim_end_matches(']');
            entry.parse().ok().or_else(|| bare.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, 53)))
        };
        let wrong = |entry| format!("{name} must be a comma separated list in the form of IPv4/6 or IPv4/6:port, got '{entry}'");
        list(text).map(|entry| one(entry).ok_or_else(|| wrong(entry))).collect::<Result<_, _>>().map(Self)
    }
}

/// Pairs of external and internal port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMaps(pub Vec<(u16, u16)>);

impl Value for PortMaps {
    const KIND: Kind = Kind::Array;

    fn read(name: &str, text: &str) -> Result<Self, String> {
        let one = |entry: &str| {
            let (external, internal) = entry.split_once(':')?;
            let port = |text: &str| text.parse().ok().filter(|port| *port != 0);
            Some((port(external)?, port(internal)?))
        };
        let wrong = |entry| format!("invalid port mapping (`{name}`): {entry}");
        list(text).map(|entry| one(entry).ok_or_else(|| wrong(entry))).collect::<Result<_, _>>().map(Self)
    }
}

/// Where an access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    Off,
    /// Relative to the prefix, or absolute (`/dev/stdout`).
    File(PathBuf),
}

impl Value for LogTarget {
    const KIND: Kind = Kind::String;

    fn read(_: &str, text: &str) -> Result<Self, String> {
        // nginx takes the name of a format after the path; there is one format here.
        let path = text.split_whitespace().next().unwrap_or_default();
        Ok(if matches!(path, "off" | "") { Self::Off } else { Self::File(path.into()) })
    }
}

/// Buffers for a request's head, as nginx writes them: `4 8k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadBuffers {
    pub number: u32,
    pub size: u64,
}

impl HeadBuffers {
    /// Greatest size of a whole head.
    pub fn total(self) -> u64 {
        self.size.saturating_mul(u64::from(self.number))
    }
}

impl Value for HeadBuffers {
    const KIND: Kind = Kind::String;

    fn read(name: &str, text: &str) -> Result<Self, String> {
        let wrong = || format!("{name} must be a number and a size, as in '4 8k': '{text}'");
        let (number, size) = text.split_once(char::is_whitespace).ok_or_else(wrong)?;
        let number = number.parse().ok().filter(|n| (1..=1024).contains(n)).ok_or_else(wrong)?;
        let size = Size::read(name, size.trim()).map_err(|_| wrong())?.0;
        if (1..=16 << 20).contains(&size) { Ok(Self { number, size }) } else { Err(wrong()) }
    }
}

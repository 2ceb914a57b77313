//! The Date field, made once a second.

use std::cell::{Cell, RefCell};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::macros::format_description;

/// The present time as HTTP writes it (RFC 9110, section 5.6.7), as of the last look at the clock.
#[derive(Debug)]
pub struct Date {
    second: Cell<u64>,
    text: RefCell<String>,
}

impl Date {
    pub fn new() -> Self {
        let date = Self { second: Cell::new(0), text: RefCell::default() };
        date.refresh();
        date
    }

    /// Looks at the clock; called a few times a second.
    pub fn refresh(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        if self.second.replace(now.as_secs()) != now.as_secs() {
            *self.text.borrow_mut() = imf_fixdate(now.as_secs());
        }
    }

    /// Appends `Tue, 15 Nov 1994 08:12:31 GMT`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.text.borrow().as_bytes());
    }
}

impl Default for Date {
    fn default() -> Self {
        Self::new()
    }
}

fn imf_fixdate(seconds: u64) -> String {
    let format = format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    let time = i64::try_from(seconds).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    time.and_then(|time| time.format(format).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn as_http_writes_it() {
        assert_eq!(super::imf_fixdate(784_887_151), "Tue, 15 Nov 1994 08:12:31 GMT");
        assert_eq!(super::imf_fixdate(0), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}

//! Bar charts as SVG, small enough to be read in a diff.

use std::fmt::Write;

/// A bar.
pub struct Item {
    pub label: String,
    pub value: f64,
    /// Least and greatest, drawn as a whisker.
    pub range: Option<(f64, f64)>,
    /// Stands out from the others.
    pub own: bool,
}

/// Bars below each other, with a mark at a value that they are compared with.
pub struct Chart {
    pub title: String,
    pub unit: String,
    pub items: Vec<Item>,
    pub mark: Option<f64>,
}

const WIDTH: f64 = 860.0;
const LABELS: f64 = 300.0;
const VALUES: f64 = 70.0;
const ROW: f64 = 22.0;
const TOP: f64 = 44.0;

impl Chart {
    /// The picture.
    pub fn svg(&self) -> String {
        let values = self.items.iter().map(|i| i.range.map_or(i.value, |(_, high)| high)).chain(self.mark);
        let most = values.fold(0.0, f64::max);
        let scale = if most > 0.0 { (WIDTH - LABELS - VALUES) / most } else { 0.0 };
        let bottom = TOP + ROW * self.items.len() as f64;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
             <text x=\"10\" y=\"22\" font-size=\"15\" font-weight=\"bold\">{title}</text>\n",
            height = bottom + 14.0,
            title = escape(&self.title),
        );
        for (number, item) in self.items.iter().enumerate() {
            let y = TOP + ROW * number as f64;
            let (colour, text) = if item.own { ("#d9622b", y + 14.0) } else { ("#9aa5b1", y + 14.0) };
            let _ = writeln!(out, "<text x=\"{:.0}\" y=\"{text:.0}\" text-anchor=\"end\">{}</text>", LABELS - 8.0, escape(&item.label));
            let _ = writeln!(
                out,
                "<rect x=\"{LABELS:.0}\" y=\"{:.0}\" width=\"{:.1}\" height=\"14\" fill=\"{colour}\"/>",
                y + 3.0,
                item.value * scale
            );
            let mut end = item.value;
            if let Some((low, high)) = item.range {
                let middle = y + 10.0;
                let (from, to) = (LABELS + low * scale, LABELS + high * scale);
                let _ = writeln!(out, "<path d=\"M{from:.1} {middle:.0}H{to:.1}\" stroke=\"#333\"/>");
                end = high;
            }
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{text:.0}\">{} {}</text>",
                LABELS + end * scale + 6.0,
                number_text(item.value),
                escape(&self.unit)
            );
        }
        if let Some(mark) = self.mark {
            let x = LABELS + mark * scale;
            let _ = writeln!(out, "<path d=\"M{x:.1} {:.0}V{bottom:.0}\" stroke=\"#1b6e3c\" stroke-dasharray=\"4 3\"/>", TOP - 6.0);
        }
        out.push_str("</svg>\n");
        out
    }
}

/// Three significant digits.
fn number_text(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture() {
        let item = |label: &str, value, own| Item { label: label.to_owned(), value, range: Some((value / 2.0, value * 2.0)), own };
        let items = vec![item("nginx & more", 1.0, false), item("troop", 0.8, true)];
        let svg = Chart { title: "CPU < nginx".to_owned(), unit: "x".to_owned(), items, mark: Some(1.0) }.svg();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("nginx &amp; more") && svg.contains("CPU &lt; nginx") && svg.contains("0.80 x"));
        assert_eq!(svg.matches("<rect").count(), 3);
    }

    #[test]
    fn nothing_is_a_picture_too() {
        let svg = Chart { title: String::new(), unit: String::new(), items: Vec::new(), mark: None }.svg();
        assert!(svg.contains("viewBox"));
        assert_eq!([number_text(0.123), number_text(12.345), number_text(1234.5)], ["0.12", "12.3", "1234"]);
    }
}

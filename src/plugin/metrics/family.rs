//! Metrics as the encoder takes them, for collectors that make theirs when they are asked.

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// A gauge with these samples.
pub fn gauge<'a>(name: &str, help: &str, samples: impl IntoIterator<Item = (Vec<(&'a str, &'a str)>, f64)>) -> MetricFamily {
    let metrics = samples.into_iter().map(|(labels, value)| gauge_sample(&labels, value));
    family(name, help, MetricType::GAUGE, metrics.collect())
}

/// A counter with these samples.
pub fn counter<'a>(name: &str, help: &str, samples: impl IntoIterator<Item = (Vec<(&'a str, &'a str)>, u64)>) -> MetricFamily {
    let metrics = samples.into_iter().map(|(labels, value)| counter_sample(&labels, value));
    family(name, help, MetricType::COUNTER, metrics.collect())
}

pub fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

pub fn gauge_sample(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut metric = labelled(labels);
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}

pub fn counter_sample(labels: &[(&str, &str)], value: u64) -> Metric {
    let mut metric = labelled(labels);
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    metric.set_counter(counter);
    metric
}

/// `counts` has one more than `bounds`: what is above the last.
pub fn histogram_sample(labels: &[(&str, &str)], bounds: &[u64], counts: &[u64], sum: u64) -> Metric {
    let mut histogram = Histogram::default();
    let mut below = 0;
    let buckets = bounds.iter().zip(counts).map(|(bound, count)| {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64);
        bucket.set_cumulative_count(below);
        bucket
    });
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(counts.iter().sum());
    histogram.set_sample_sum(sum as f64);
    let mut metric = labelled(labels);
    metric.set_histogram(histogram);
    metric
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

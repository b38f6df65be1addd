//! Reads series of a sample by the name of their metric and their labels.

use std::collections::BTreeMap;

use super::samples::SampleData;

/// Returns the series of a metric: the whole name, the labels as they stand between the braces, and
/// the value.
pub(super) fn series<'s>(
    all: &'s BTreeMap<String, f64>,
    metric: &'s str,
) -> impl Iterator<Item = (&'s str, &'s str, f64)> {
    let names = all.range(metric.to_owned()..);
    names
        .take_while(move |(name, _)| name.starts_with(metric))
        .filter_map(move |(name, value)| {
            let rest = &name[metric.len()..];
            let labels = match rest.strip_prefix('{') {
                Some(labels) => labels.trim_end_matches('}'),
                None if rest.is_empty() => "",
                None => return None,
            };
            Some((name.as_str(), labels, *value))
        })
}

/// Returns the value of a label.
pub(super) fn label<'l>(labels: &'l str, name: &str) -> Option<&'l str> {
    labels
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value.trim_matches('"'))
}

impl SampleData {
    /// Returns a gauge; one that is 0 is absent from the sample.
    pub(super) fn gauge(&self, metric: &str, name: &str, value: &str) -> f64 {
        series(&self.gauges, metric)
            .find(|(_, labels, _)| label(labels, name) == Some(value))
            .map_or(0.0, |(_, _, found)| found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_found_by_its_metric_and_its_labels() {
        let all = [
            ("jobs_total", 1.0),
            (r#"jobs_total{pipeline="dispatch",state="parked"}"#, 2.0),
            (r#"jobs_total_of_others{state="parked"}"#, 3.0),
            (r#"jobs{state="parked"}"#, 4.0),
        ];
        let all: BTreeMap<String, f64> = all.map(|(name, n)| (name.to_owned(), n)).into();
        let found: Vec<(&str, f64)> = series(&all, "jobs_total")
            .map(|(name, labels, n)| {
                assert!(name.contains(labels));
                (labels, n)
            })
            .collect();
        assert_eq!(
            found,
            [("", 1.0), (r#"pipeline="dispatch",state="parked""#, 2.0)]
        );
        assert_eq!(label(found[1].0, "state"), Some("parked"));
        assert_eq!(label(found[1].0, "stage"), None);
    }

    #[test]
    fn a_gauge_that_is_absent_is_zero() {
        let permits = (r#"permits{lane="messaging"}"#.to_owned(), 16.0);
        let sample = SampleData {
            gauges: BTreeMap::from([permits]),
            ..SampleData::default()
        };
        assert!((sample.gauge("permits", "lane", "messaging") - 16.0).abs() < f64::EPSILON);
        assert!(sample.gauge("permits", "lane", "dispatch").abs() < f64::EPSILON);
    }
}

// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package service

// Metric is something that a protocol counts by itself.
type Metric struct {
	Name   string   // on the page of metrics, whole; the name of what only grows ends with _total
	Help   string   // a sentence
	Noun   string   // what tables call it; "" if they do not show it
	Labels []string // of its series: those of CONTRIBUTING.md, then its own

	// Sessions says that its series are clients that are connected now, or calls under way; or, if it only grows, those that have
	// ended: by service, client_family and, where that is known of them, backend_family.
	Sessions bool
}

// Count is one series of a metric.
type Count struct {
	Metric Metric
	Values []string // of the labels, in their order
	Value  int64

	Histogram *Histogram // nil if it is no more than a value; else Value is how many there are
}

// Reads dashboards and queries as those do who are to read them: Grafana's own types, and Prometheus's own
// parser.
//
//	dashboards check FILE...   dashboards are Grafana's: no field that it does not know, none of another type,
//	                           none that is missing, no value that it does not allow
//	dashboards ask             reads a JSON list of queries; writes, for each, what it asks for
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/prometheus/prometheus/promql/parser"
)

func check(file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var read dashboard.Dashboard
	if err := found(read.UnmarshalJSONStrict(raw)); err != nil {
		return err
	}
	if current := dashboard.NewDashboard().SchemaVersion; read.SchemaVersion != current {
		return fmt.Errorf("schemaVersion: %d, and the current one is %d", read.SchemaVersion, current)
	}
	if err := found(read.Validate()); err != nil {
		return err
	}
	return panels(raw)
}

// panels: what the SDK lets pass: a panel of a kind that there is not, and how its fields are shown.
func panels(raw []byte) error {
	var read struct {
		Panels []struct {
			Title       string          `json:"title"`
			Type        string          `json:"type"`
			FieldConfig json.RawMessage `json:"fieldConfig"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(raw, &read); err != nil {
		return err
	}
	var all []error
	for _, panel := range read.Panels {
		if panel.Type == "row" {
			continue
		}
		if _, known := cog.ConfigForPanelcfgVariant(panel.Type); !known {
			all = append(all, fmt.Errorf("%s: there is no panel %q", panel.Title, panel.Type))
		}
		var fields dashboard.FieldConfigSource
		if err := found(fields.UnmarshalJSONStrict(panel.FieldConfig)); err != nil {
			all = append(all, fmt.Errorf("%s: fieldConfig: %w", panel.Title, err))
		}
	}
	return errors.Join(all...)
}

// found: the SDK has an empty list of errors, too.
func found(err error) error {
	var list cog.BuildErrors
	if errors.As(err, &list) && len(list) == 0 {
		return nil
	}
	return err
}

// Asked is a metric, with the labels that are asked of it.
type Asked struct {
	Metric string   `json:"metric"`
	Labels []string `json:"labels"`
}

// Query is what a query asks for.
type Query struct {
	// Of each selector; labels that it is grouped by or joined on are among those of each of its selectors.
	Selectors []Asked `json:"selectors"`
	// Why it is none.
	Error string `json:"error,omitempty"`
}

func ask(text string) Query {
	root, err := parser.NewParser(parser.Options{}).ParseExpr(text)
	if err != nil {
		return Query{Error: err.Error()}
	}
	var query Query
	parser.Inspect(root, func(node parser.Node, path []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		asked := Asked{Metric: selector.Name, Labels: []string{}}
		for _, matcher := range selector.LabelMatchers {
			if matcher.Name != "__name__" {
				asked.Labels = append(asked.Labels, matcher.Name)
			}
		}
		for _, outer := range path {
			switch outer := outer.(type) {
			case *parser.AggregateExpr:
				if !outer.Without {
					asked.Labels = append(asked.Labels, outer.Grouping...)
				}
			case *parser.BinaryExpr:
				if matching := outer.VectorMatching; matching != nil && matching.On {
					asked.Labels = append(asked.Labels, matching.MatchingLabels...)
				}
			}
		}
		query.Selectors = append(query.Selectors, asked)
		return nil
	})
	return query
}

func run(arguments []string) error {
	if len(arguments) == 1 && arguments[0] == "ask" {
		var texts []string
		if err := json.NewDecoder(os.Stdin).Decode(&texts); err != nil {
			return err
		}
		queries := []Query{}
		for _, text := range texts {
			queries = append(queries, ask(text))
		}
		return json.NewEncoder(os.Stdout).Encode(queries)
	}
	if len(arguments) > 1 && arguments[0] == "check" {
		plugins.RegisterDefaultPlugins()
		var all []error
		for _, file := range arguments[1:] {
			if err := check(file); err != nil {
				all = append(all, fmt.Errorf("%s: %w", file, err))
			}
		}
		return errors.Join(all...)
	}
	return errors.New("usage: dashboards check FILE... | dashboards ask")
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

package preflight

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// The columns of a report for people.
const (
	resultWidth = 10
	nameWidth   = 30
	lineWidth   = 110
)

// WriteText writes the report for people: plain text in columns, the verdict and what to do at its end.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Preflight of %s, %s, agent %s\n", orUnknown(r.Host), r.Time.Format(time.RFC3339), r.Agent)
	section := ""
	for _, c := range r.Checks {
		if c.Section != section {
			section = c.Section
			fmt.Fprintf(&b, "\n%s\n", strings.ToUpper(section))
		}
		head := fmt.Sprintf("  %-*s%-*s", resultWidth, c.Result, nameWidth, c.Name+" ")
		writeWrapped(&b, head, c.Found)
		if c.Remedy != "" {
			writeWrapped(&b, strings.Repeat(" ", 2+resultWidth)+fmt.Sprintf("%-*s", nameWidth, "  what to do:"), c.Remedy)
		}
	}
	if len(r.Open) > 0 {
		fmt.Fprint(&b, "\nNOT ANSWERED BY THIS RUN\n")
		for _, question := range r.Open {
			writeWrapped(&b, "  - ", question)
		}
	}
	fmt.Fprintf(&b, "\nVERDICT\n  %s\n", r.Summary)
	_, err := io.WriteString(w, b.String())
	return err
}

// writeWrapped writes text behind a head, and further lines below its beginning.
func writeWrapped(b *strings.Builder, head, text string) {
	indent := strings.Repeat(" ", len(head))
	line := head
	for _, word := range strings.Fields(text) {
		if len(line)+len(word) > lineWidth && len(strings.TrimSpace(line)) > 0 && line != indent {
			fmt.Fprintln(b, strings.TrimRight(line, " "))
			line = indent
		}
		line += word + " "
	}
	fmt.Fprintln(b, strings.TrimRight(line, " "))
}

func orUnknown(name string) string {
	if name == "" {
		return "an unknown host"
	}
	return name
}

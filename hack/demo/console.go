package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// console is what a person sees of the demo: headings, sentences, and commands with their output.
type console struct {
	out     io.Writer
	colour  bool
	kubectl string   // path of the program
	env     []string // of kubectl
	started time.Time
	chapter int
}

func newConsole() *console {
	stat, err := os.Stdout.Stat()
	terminal := err == nil && stat.Mode()&os.ModeCharDevice != 0
	return &console{out: os.Stdout, colour: terminal && os.Getenv("NO_COLOR") == "", started: time.Now()}
}

// The few attributes that the demo uses (ECMA-48, 8.3.117).
const (
	bold  = "1"
	faint = "2"
	red   = "31"
	green = "32"
	cyan  = "36"
)

func (c *console) paint(attribute, text string) string {
	if !c.colour {
		return text
	}
	return "\x1b[" + attribute + "m" + text + "\x1b[0m"
}

// heading begins a chapter.
func (c *console) heading(title string) {
	c.chapter++
	elapsed := time.Since(c.started).Round(time.Second)
	fmt.Fprintf(c.out, "\n%s %s\n\n", c.paint(bold, fmt.Sprintf("%d. %s", c.chapter, title)), c.paint(faint, fmt.Sprintf("(%s)", elapsed)))
}

// say prints a sentence.
func (c *console) say(format string, args ...any) { fmt.Fprintf(c.out, format+"\n", args...) }

// detail prints a line of lesser weight.
func (c *console) detail(format string, args ...any) {
	fmt.Fprintln(c.out, c.paint(faint, "   "+fmt.Sprintf(format, args...)))
}

// table prints rows in columns.
func (c *console) table(rows [][]string) {
	writer := tabwriter.NewWriter(c.out, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(writer, "   "+strings.Join(row, "\t"))
	}
	_ = writer.Flush() // a terminal that is gone
}

// run runs kubectl as a person would, and shows the command and what it prints.
func (c *console) run(ctx context.Context, args ...string) error {
	c.show(args)
	cmd := c.command(ctx, args)
	output := &indenter{out: c.out}
	cmd.Stdout, cmd.Stderr = output, output
	err := cmd.Run()
	fmt.Fprintln(c.out)
	if err != nil {
		return fmt.Errorf("kubectl %s: %w", args[0], err)
	}
	return nil
}

// watch runs kubectl with --watch until ctx ends, and shows each line that says something new: the first column names what it is about.
func (c *console) watch(ctx context.Context, args ...string) error {
	args = append(args, "--watch")
	c.show(args)
	cmd := c.command(ctx, args)
	cmd.Stderr = &indenter{out: c.out}
	lines, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	last := map[string]string{}
	for scanner := bufio.NewScanner(lines); scanner.Scan(); {
		line := scanner.Text()
		name, rest, _ := strings.Cut(line, " ")
		if said := strings.Join(strings.Fields(rest), " "); last[name] != said {
			last[name] = said
			fmt.Fprintln(c.out, "   "+line)
		}
	}
	_ = cmd.Wait() // it ends by being killed
	fmt.Fprintln(c.out)
	return nil
}

func (c *console) command(ctx context.Context, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.kubectl, args...)
	cmd.Env = append(os.Environ(), c.env...)
	return cmd
}

func (c *console) show(args []string) {
	quoted := make([]string, len(args))
	for i, arg := range args {
		if quoted[i] = arg; strings.ContainsAny(arg, " {}[]'$*") {
			quoted[i] = "'" + arg + "'"
		}
	}
	fmt.Fprintln(c.out, c.paint(cyan, "$ kubectl "+strings.Join(quoted, " ")))
}

// indenter sets what a command prints off from what the demo says.
type indenter struct {
	mu   sync.Mutex
	out  io.Writer
	open bool // within a line
}

func (i *indenter) Write(p []byte) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for line := range strings.Lines(string(p)) {
		if !i.open {
			line = "   " + line
		}
		i.open = !strings.HasSuffix(line, "\n")
		if _, err := io.WriteString(i.out, line); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

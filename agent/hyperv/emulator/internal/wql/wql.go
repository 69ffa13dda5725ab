// Package wql parses and evaluates the part of WQL that clients of Hyper-V use: SELECT over one class with a WHERE of comparisons, and the
// event queries that are written likewise.
package wql

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Query is a parsed SELECT.
type Query struct {
	// Columns are the selected properties; empty means all.
	Columns []string
	Class   string
	// Within is how often an event query compares the instances; zero in other queries.
	Within time.Duration
	where  expression // nil selects every instance
}

// maxLength bounds how deep a query can nest.
const maxLength = 64 << 10

// Parse reads `SELECT * | column, ... FROM Class [WHERE condition]`. Conditions compare a property with a constant by =, <>, !=, <, >, <=, >= and LIKE, or test
// IS [NOT] NULL; they are combined by AND, OR, NOT and parentheses.
//
// Event queries have WITHIN seconds before their WHERE, compare properties of the event's objects (TargetInstance.Name), with each other as well,
// and say of which class an object is (TargetInstance ISA 'Class').
func Parse(text string) (Query, error) {
	if len(text) > maxLength {
		return Query{}, fmt.Errorf("it is longer than %d bytes", maxLength)
	}
	tokens, err := scan(text)
	if err != nil {
		return Query{}, err
	}
	p := &parser{tokens: tokens}
	q, err := p.query()
	if err != nil {
		return Query{}, err
	}
	if !p.done() {
		return Query{}, fmt.Errorf("unexpected %q", p.tokens[0].text)
	}
	return q, nil
}

// Properties returns the names of all properties that the query selects or compares.
func (q Query) Properties() []string {
	names := append([]string(nil), q.Columns...)
	if q.where != nil {
		names = q.where.properties(names)
	}
	return names
}

// Matches says whether an instance meets the condition. Property names are those that the instance has, by lookup.
func (q Query) Matches(lookup func(property string) any) (bool, error) {
	if q.where == nil {
		return true, nil
	}
	result, err := q.where.eval(lookup)
	return result == yes, err
}

type parser struct {
	tokens []token
}

func (p *parser) done() bool { return len(p.tokens) == 0 }

// word takes the next token if it is this keyword or symbol.
func (p *parser) word(w string) bool {
	if p.done() || p.tokens[0].kind == textToken || !strings.EqualFold(p.tokens[0].text, w) {
		return false
	}
	p.tokens = p.tokens[1:]
	return true
}

func (p *parser) expect(w string) error {
	if p.word(w) {
		return nil
	}
	if p.done() {
		return fmt.Errorf("%s expected at the end", w)
	}
	return fmt.Errorf("%s expected before %q", w, p.tokens[0].text)
}

func (p *parser) name() (string, error) {
	if p.done() || p.tokens[0].kind != nameToken {
		return "", fmt.Errorf("a name is missing")
	}
	name := p.tokens[0].text
	p.tokens = p.tokens[1:]
	return name, nil
}

func (p *parser) query() (Query, error) {
	var q Query
	if err := p.expect("SELECT"); err != nil {
		return q, err
	}
	if !p.word("*") {
		for {
			column, err := p.name()
			if err != nil {
				return q, err
			}
			q.Columns = append(q.Columns, column)
			if !p.word(",") {
				break
			}
		}
	}
	if err := p.expect("FROM"); err != nil {
		return q, err
	}
	class, err := p.name()
	if err != nil {
		return q, err
	}
	q.Class = class
	if p.word("WITHIN") {
		if q.Within, err = p.seconds(); err != nil {
			return q, err
		}
	}
	if p.word("WHERE") {
		q.where, err = p.or()
	}
	return q, err
}

// maxWithin is far more than anybody waits for an event, and keeps seconds within a time.Duration.
const maxWithin = 1e6

func (p *parser) seconds() (time.Duration, error) {
	if p.done() || p.tokens[0].kind != numberToken {
		return 0, fmt.Errorf("a number of seconds is missing after WITHIN")
	}
	seconds, err := strconv.ParseFloat(p.tokens[0].text, 64)
	if err != nil || !(seconds > 0 && seconds < maxWithin) {
		return 0, fmt.Errorf("%q is no number of seconds", p.tokens[0].text)
	}
	p.tokens = p.tokens[1:]
	return time.Duration(seconds * float64(time.Second)), nil
}

func (p *parser) or() (expression, error) {
	left, err := p.and()
	for err == nil && p.word("OR") {
		var right expression
		right, err = p.and()
		left = or{left, right}
	}
	return left, err
}

func (p *parser) and() (expression, error) {
	left, err := p.not()
	for err == nil && p.word("AND") {
		var right expression
		right, err = p.not()
		left = and{left, right}
	}
	return left, err
}

func (p *parser) not() (expression, error) {
	if p.word("NOT") {
		e, err := p.not()
		return not{e}, err
	}
	if p.word("(") {
		e, err := p.or()
		if err != nil {
			return nil, err
		}
		return e, p.expect(")")
	}
	return p.comparison()
}

var operators = []string{"=", "<>", "!=", "<=", ">=", "<", ">", "LIKE"}

func (p *parser) comparison() (expression, error) {
	property, err := p.name()
	if err != nil {
		return nil, err
	}
	if p.word("IS") {
		negated := p.word("NOT")
		if err := p.expect("NULL"); err != nil {
			return nil, err
		}
		return isNull{property, negated}, nil
	}
	if p.word("ISA") {
		class, err := p.value("ISA")
		if name, isText := class.(string); err == nil && isText {
			return isa{property, name}, nil
		}
		return nil, fmt.Errorf("the name of a class is missing after ISA")
	}
	for _, op := range operators {
		if !p.word(op) {
			continue
		}
		value, err := p.value(op)
		if err != nil {
			return nil, err
		}
		if _, isText := value.(string); op == "LIKE" && !isText {
			return nil, fmt.Errorf("LIKE needs a text")
		}
		return comparison{property, op, value}, nil
	}
	return nil, fmt.Errorf("an operator is missing after %s", property)
}

// value takes what an operator compares with: a constant, or in event queries a property of an object.
func (p *parser) value(operator string) (any, error) {
	if p.done() {
		return nil, fmt.Errorf("a value is missing after %s", operator)
	}
	t := p.tokens[0]
	p.tokens = p.tokens[1:]
	if t.kind == nameToken && strings.Contains(t.text, ".") {
		return reference(t.text), nil
	}
	return t.value()
}

package wql

import (
	"fmt"
	"strconv"
	"strings"
)

type tokenKind uint8

const (
	nameToken tokenKind = iota
	numberToken
	textToken
	symbolToken
)

type token struct {
	kind tokenKind
	text string // without quotes and escapes
}

// value is the constant that a token stands for: string, int64 or bool.
func (t token) value() (any, error) {
	switch {
	case t.kind == textToken:
		return t.text, nil
	case t.kind == numberToken:
		return strconv.ParseInt(t.text, 10, 64)
	case strings.EqualFold(t.text, "true"):
		return true, nil
	case strings.EqualFold(t.text, "false"):
		return false, nil
	}
	return nil, fmt.Errorf("%q is no value", t.text)
}

func scan(text string) ([]token, error) { //nolint:gocyclo // a case for each kind of token
	var out []token
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			i++
		case c == '\'' || c == '"':
			t, n, err := quoted(text[i:])
			if err != nil {
				return nil, err
			}
			out, i = append(out, t), i+n
		case isNameByte(c) || c == '-':
			n := 1
			for i+n < len(text) && isNameByte(text[i+n]) {
				n++
			}
			kind := nameToken
			if c == '-' || '0' <= c && c <= '9' {
				kind = numberToken
			}
			out, i = append(out, token{kind, text[i : i+n]}), i+n
		default:
			n := 1
			if i+1 < len(text) && strings.Contains(" <> <= >= != ", " "+text[i:i+2]+" ") {
				n = 2
			}
			if !strings.Contains("*,()=<>!", text[i:i+1]) || text[i:i+n] == "!" {
				return nil, fmt.Errorf("unexpected %q", text[i:i+n])
			}
			out, i = append(out, token{symbolToken, text[i : i+n]}), i+n
		}
	}
	return out, nil
}

// quoted reads a text constant. A backslash escapes the byte behind it; a single one before anything but a quote or a backslash is a mistake
// that WMI answers with an invalid query.
func quoted(text string) (token, int, error) {
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == text[0]:
			return token{textToken, b.String()}, i + 1, nil
		case text[i] != '\\':
			b.WriteByte(text[i])
		case i+1 < len(text) && strings.IndexByte(`\'"`, text[i+1]) >= 0:
			i++
			b.WriteByte(text[i])
		default:
			return token{}, 0, fmt.Errorf(`a backslash in %s must be written as \\`, text)
		}
	}
	return token{}, 0, fmt.Errorf("the text %s has no end", text)
}

func isNameByte(c byte) bool {
	return c == '_' || c == '.' || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}

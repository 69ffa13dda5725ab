package wmi

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

var quoter = strings.NewReplacer(`\`, `\\`, `'`, `\'`)

// Quote makes a WQL string literal of any text, so that a name or path cannot end the literal.
func Quote(text string) string { return "'" + quoter.Replace(text) + "'" }

// className is the class in an object path (`\\HV01\root\virtualization\v2:Msvm_ConcreteJob.InstanceID="..."`).
func className(path string) string {
	if i := strings.Index(path, ":Msvm_"); i >= 0 {
		path = path[i+1:]
	}
	name, _, _ := strings.Cut(path, ".")
	name, _, _ = strings.Cut(name, "=")
	return name
}

// ParseTime reads a CIM datetime: yyyymmddHHMMSS.mmmmmm+UUU, where UUU are the minutes east of UTC. "" is the zero time.
func ParseTime(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if len(text) != 25 || text[14] != '.' {
		return time.Time{}, fmt.Errorf("%w: %q is no CIM datetime", ErrProperty, text)
	}
	minutes, err := strconv.Atoi(text[21:])
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: %q is no CIM datetime", ErrProperty, text)
	}
	at, err := time.ParseInLocation("20060102150405.000000", text[:21], time.FixedZone("", minutes*60))
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: %q is no CIM datetime", ErrProperty, text)
	}
	return at.UTC(), nil
}

package wmi

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
)

// What a Hyper-V method means by refusing. The codes stand at MethodError.Is.
var (
	// ErrBusy: the object or a file of it is in use by another operation. Try again later.
	ErrBusy = errors.New("in use by another operation")
	// ErrInvalidState: the object is in a state in which this cannot be done, often because of an operation that runs. Look, then try again.
	ErrInvalidState = errors.New("not possible in the current state")
	// ErrTimeout: Hyper-V gave up waiting. Try again later.
	ErrTimeout = errors.New("timed out on the host")
	// ErrUnavailable: the system is not available. Try again later.
	ErrUnavailable = errors.New("the system is not available")
	// ErrNotSupported: this host cannot do it.
	ErrNotSupported = errors.New("not supported")
	// ErrFull: a volume of the host has no space left.
	ErrFull = errors.New("a volume of the host is full")
	// ErrJobGone: the job was started, but its record disappeared before its end was seen. Whether it succeeded shows only its effect.
	ErrJobGone = errors.New("the job disappeared before its end was seen")
)

// MethodError is a method, or the job that it started, that refused or failed.
type MethodError struct {
	Class, Method string
	// ReturnValue is the method's own; 4096 when a job was started.
	ReturnValue uint32
	// JobState and JobErrorCode are those of the ended job, zero without one.
	JobState, JobErrorCode int64
	// Messages are the host's texts, in the host's language, most important first.
	Messages []string
}

// Code is the deciding one of the two codes.
func (e *MethodError) Code() int64 {
	if e.ReturnValue == returnJobStarted {
		return e.JobErrorCode
	}
	return int64(e.ReturnValue)
}

// Text is what the host said, on one line; "" when it said nothing.
func (e *MethodError) Text() string { return strings.Join(e.Messages, " ") }

func (e *MethodError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s.%s", e.Class, e.Method)
	if e.ReturnValue == returnJobStarted {
		fmt.Fprintf(&b, ": job ended in state %d with code %d", e.JobState, e.JobErrorCode)
	} else {
		fmt.Fprintf(&b, " returned %d", e.ReturnValue)
	}
	if meaning := e.meaning(); meaning != nil {
		fmt.Fprintf(&b, " (%v)", meaning)
	}
	if len(e.Messages) > 0 {
		fmt.Fprintf(&b, ": %s", e.Text())
	}
	return b.String()
}

// Is compares the error's meaning with one of this package's sentinels.
func (e *MethodError) Is(target error) bool {
	meaning := e.meaning()
	return meaning != nil && meaning == target
}

// diskFullCodes are how a text tells that a volume is full (ERROR_DISK_FULL, ERROR_HANDLE_DISK_FULL): the code that Hyper-V prints
// behind a message is the same in every language, and the job's own code is then only "failed".
var diskFullCodes = []string{"0x80070070", "0x80070027"}

// conflictText is how Hyper-V says, in English, that another operation works on the VM ("cannot start a backup operation because it is currently
// executing a conflicting operation"). Replication makes it say so with a code that only means "failed".
const conflictText = "conflicting operation"

// meaning maps the codes of the Hyper-V services: 1..6 of the snapshot and reference point services (CreateSnapshot), 32769..32779 of all.
func (e *MethodError) meaning() error {
	for _, code := range diskFullCodes {
		if strings.Contains(e.Text(), code) {
			return ErrFull
		}
	}
	if strings.Contains(e.Text(), conflictText) {
		return ErrBusy
	}
	switch e.Code() {
	case 1, 32770:
		return ErrNotSupported
	case 3, 32772:
		return ErrTimeout
	case 4, 6, 32773, 32776:
		return ErrInvalidParameter
	case 5, 32775:
		return ErrInvalidState
	case 32769:
		return ErrAccessDenied
	case 32774, 32779:
		return ErrBusy
	case 32777:
		return ErrUnavailable
	}
	return nil
}

// jobMessages collects what a job says about its failure. Only GetErrorEx has the cause; the job's own properties are the fallback.
func jobMessages(ctx context.Context, s Session, job Instance) []string {
	var out []string
	if result, err := s.Invoke(ctx, job.Path, "GetErrorEx", nil); err == nil {
		texts, _ := result.Out["Errors"].([]string)
		for _, text := range texts {
			if message := errorMessage(text); message != "" {
				out = append(out, message)
			}
		}
	}
	if len(out) > 0 {
		return out
	}
	if text, err := job.String("ErrorDescription"); err == nil && text != "" {
		return []string{text}
	}
	return nil
}

// errorMessage takes the message out of an embedded Msvm_Error, which Hyper-V passes as DTD 2.0 XML.
func errorMessage(text string) string {
	var instance struct {
		Properties []struct {
			Name  string `xml:"NAME,attr"`
			Value string `xml:"VALUE"`
		} `xml:"PROPERTY"`
	}
	if xml.Unmarshal([]byte(text), &instance) != nil {
		return ""
	}
	for _, p := range instance.Properties {
		if p.Name == "Message" {
			return strings.Join(strings.Fields(p.Value), " ")
		}
	}
	return ""
}

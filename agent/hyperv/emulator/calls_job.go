package emulator

import (
	"encoding/xml"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Requested states of a job (CIM_ConcreteJob.RequestStateChange).
const (
	terminateJob = 4
	killJob      = 5
)

func (c call) cancelJob() (wmi.Result, error) {
	state, _ := c.in["RequestedState"].(int64)
	if state != terminateJob && state != killJob {
		return refuse(codeInvalidParameter)
	}
	id, _ := c.target.properties["InstanceID"].(string)
	if !c.host.jobs.terminate(id) {
		return refuse(codeInvalidState)
	}
	return refuse(codeDone)
}

func (c call) jobErrors() (wmi.Result, error) {
	id, _ := c.target.properties["InstanceID"].(string)
	return wmi.Result{Out: map[string]any{"Errors": c.host.jobs.errorsOf(id)}}, nil
}

// formatError turns embedded Msvm_Error instances into their messages.
func (c call) formatError() (wmi.Result, error) {
	type instance struct {
		Properties []struct {
			Name  string `xml:"NAME,attr"`
			Value string `xml:"VALUE"`
		} `xml:"PROPERTY"`
	}
	all, _ := c.in["Errors"].([]string)
	var messages []string
	for _, text := range all {
		var i instance
		if err := xml.Unmarshal([]byte(text), &i); err != nil {
			return refuse(codeInvalidParameter)
		}
		for _, p := range i.Properties {
			if p.Name == "Message" {
				messages = append(messages, p.Value)
			}
		}
	}
	return wmi.Result{Out: map[string]any{"ErrorMessage": strings.Join(messages, "\n")}}, nil
}

func (c call) startService() (wmi.Result, error) { return c.setService(true) }
func (c call) stopService() (wmi.Result, error)  { return c.setService(false) }

// setService returns what Win32_Service does: 0 success, 10 it runs already, 14 it is disabled, 6 it is stopped already.
func (c call) setService(run bool) (wmi.Result, error) {
	name, _ := c.target.properties["Name"].(string)
	c.host.mu.Lock()
	defer c.host.mu.Unlock()
	if c.host.services[name] == run {
		if run {
			return refuse(10)
		}
		return refuse(6)
	}
	if run && c.host.disabled[name] {
		return refuse(14)
	}
	c.host.services[name] = run
	return refuse(codeDone)
}

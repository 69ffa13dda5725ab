//go:build windows

package com

import (
	"errors"
	"sync/atomic"

	"github.com/go-ole/go-ole"
	cim "github.com/microsoft/wmi/pkg/wmiinstance"
)

// classLocator is WbemScripting.SWbemLocator.
var classLocator = ole.NewGUID("{76A64158-CB41-11D1-8B02-00600806D9B6}")

// connection is a connection of the WMI library to one namespace. It counts its users, and the last one gives it back: calls may
// still run on it when the session has already made another one.
type connection struct {
	locator *ole.IDispatch
	session *cim.WmiSession
	users   atomic.Int64
}

// connect connects to a namespace of this host. The caller is the connection's first user.
func connect(namespace string) (*connection, error) {
	unknown, err := ole.CreateInstance(classLocator, ole.IID_IUnknown)
	if err != nil {
		return nil, explain("create SWbemLocator", err)
	}
	defer unknown.Release()
	locator, err := unknown.QueryInterface(cim.IID_ISWbemLocator)
	if err != nil {
		return nil, explain("create SWbemLocator", err)
	}
	c := &connection{locator: locator}
	c.users.Store(1)
	if c.session, err = cim.CreateSession(locator, namespace, "", "", "", ""); err == nil {
		_, err = c.session.Connect()
	}
	if err != nil {
		c.leave()
		return nil, explain("connect to "+namespace, err)
	}
	return c, nil
}

// leave ends a use. It runs in the apartment.
func (c *connection) leave() {
	if c.users.Add(-1) > 0 {
		return
	}
	if c.session != nil && c.session.RawSession != nil {
		c.session.Close()
	}
	c.locator.Release()
}

// get returns the instance at a path, or the class of a name.
func (c *connection) get(path string) (object, error) {
	found, err := c.session.GetInstance(path)
	if err != nil {
		return object{}, explain("get "+path, err)
	}
	if found.GetIDispatch() == nil {
		return object{}, errors.Join(&Error{Op: "get " + path, Code: hrNotFound}, found.Close())
	}
	return object{found.GetIDispatch()}, nil // the reference of the library's own object, which needs no closing then
}

// query calls f with each instance that a query finds.
func (c *connection) query(wql string, f func(object) error) error {
	found, err := object{c.session.Session}.call("ExecQuery", wql)
	if err != nil {
		return err
	}
	defer found.release()
	return found.each("ExecQuery", f)
}

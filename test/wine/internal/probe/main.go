// Command probe is the Windows program with which the tests of package wine look around.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
}

func run(verb string, args []string) error {
	switch verb {
	case "show": // a file, or the names in a folder
		if entries, err := os.ReadDir(args[0]); err == nil {
			for _, e := range entries {
				fmt.Println(e.Name())
			}
			return nil
		}
		text, err := os.ReadFile(args[0])
		fmt.Print(string(text))
		return err
	case "write":
		return os.WriteFile(args[0], []byte(args[1]), 0o644)
	case "exit":
		code, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		os.Exit(code)
	case "wait": // until someone interrupts
		interrupted := make(chan os.Signal, 1)
		signal.Notify(interrupted, os.Interrupt)
		fmt.Println("waiting")
		<-interrupted
		fmt.Println("interrupted")
	case "environment":
		fmt.Println(strings.Join(os.Environ(), "\n"))
	}
	return nil
}

// What the service answers, and everything below.
var SERVICE = [
  '/api',
  '/mcp',
  '/health',
  '/ready',
  '/openapi.json',
  '/.well-known/oauth-protected-resource',
];

// Runs at the edge on every request.
function handler(event) {
  var request = event.request;
  // The firewall at the load balancer sees CloudFront's address: tell it the viewer's. Whatever a
  // viewer sends under this name is overwritten.
  request.headers['x-bme-viewer'] = { value: event.viewer.ip };
  var uri = request.uri;
  var isService = SERVICE.some((path) => uri === path || uri.startsWith(path + '/'));
  var hasExtension = uri.lastIndexOf('.') > uri.lastIndexOf('/');
  // The application's own routes, /notes/42, are all served by one document.
  if (!isService && !hasExtension) {
    request.uri = '/index.html';
  }
  return request;
}
